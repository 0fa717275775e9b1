"""Sending mails: failures are retried within bounds; secrets go to authenticated servers only."""

import ipaddress
import logging
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, text

from app.mail import delivery, outbox, templates
from app.mail.smtp import Folder, NeverSent, NotSent, Smtp
from app.models import MailKind
from tests.fixtures import Person
from tests.mail_server import Behaviour, MailServer

FAILING: tuple[Behaviour, ...] = ("busy", "die before", "hang")
CANARY = "canary@example.com"


def to(server: MailServer) -> Smtp:
    return Smtp("127.0.0.1", server.port, "none", timeout_seconds=0.5)


def due_in(connection: Connection) -> list[float]:
    """Return how many seconds from now each mail is due."""
    statement = text("SELECT EXTRACT(epoch FROM due_at - now()) FROM outgoing_mails ORDER BY id")
    return [float(seconds) for seconds in connection.scalars(statement)]


def make_due(connection: Connection) -> None:
    connection.execute(text("UPDATE outgoing_mails SET due_at = now() WHERE due_at < 'infinity'"))


@pytest.fixture
def notice(connection: Connection) -> str:
    """Insert a due mail and return its address."""
    outbox.post(connection, "email_changed", CANARY)
    return CANARY


def test_a_mail_that_was_sent_leaves_nothing_behind(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    assert delivery.send_next(to(mail_server))
    assert not delivery.send_next(to(mail_server))

    (received,) = mail_server.received
    assert received.address == notice
    assert received.message["From"] == "no-reply@localhost"
    assert received.message["Auto-Submitted"] == "auto-generated"
    assert received.message["Message-ID"].endswith("@localhost>")
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


@pytest.mark.parametrize("behaviour", FAILING)
def test_a_mail_that_was_not_taken_is_due_again_after_a_pause_that_doubles(
    connection: Connection, notice: str, caplog: pytest.LogCaptureFixture, behaviour: Behaviour
) -> None:
    with MailServer(behaviour) as server:
        for pause in (15, 30, 60):
            assert delivery.send_next(to(server))
            assert pause - 5 < due_in(connection)[0] <= pause
            assert not delivery.send_next(to(server)), "it is not due"
            make_due(connection)
        assert server.connection_count == 3
        assert server.received == []

        server.behaviour = "accept"
        assert delivery.send_next(to(server))
        assert [received.address for received in server.received] == [notice]
    assert {record.levelname for record in caplog.records if record.name == "app.mail"} == {"WARNING"}
    assert CANARY not in caplog.text


def test_after_eight_attempts_a_mail_is_given_up_kept_and_logged(
    connection: Connection, notice: str, caplog: pytest.LogCaptureFixture
) -> None:
    with MailServer("busy") as server:
        for _ in range(8):
            assert delivery.send_next(to(server))
            make_due(connection)
        assert not delivery.send_next(to(server))
        assert server.connection_count == 8

    assert notice
    rows = connection.execute(text("SELECT attempt_count, failure, due_at::text FROM outgoing_mails")).all()
    assert [tuple(row) for row in rows] == [(8, "the address was refused (451)", "infinity")]
    (said,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert said.message.startswith("mail given up: mail=")
    assert said.message.endswith("attempt=8 reason='the address was refused (451)'")
    assert CANARY not in caplog.text


def test_an_address_that_is_refused_for_good_is_not_tried_again(connection: Connection, notice: str) -> None:
    with MailServer("refuse") as server:
        assert delivery.send_next(to(server))
        make_due(connection)
        assert not delivery.send_next(to(server))
        assert server.connection_count == 1

    assert notice
    assert connection.scalar(text("SELECT failure FROM outgoing_mails")) == "the address was refused (550)"


def test_a_mail_whose_senders_crashed_each_time_is_given_up(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    connection.execute(text("UPDATE outgoing_mails SET attempt_count = 8"))

    assert delivery.send_next(to(mail_server))
    assert not delivery.send_next(to(mail_server))

    assert notice
    assert mail_server.received == []
    assert connection.scalar(text("SELECT failure FROM outgoing_mails")) == "every sender crashed"


def test_a_mail_that_waits_for_more_than_a_day_is_not_sent_any_more(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    connection.execute(text("UPDATE outgoing_mails SET created_at = now() - interval '25 hours'"))

    assert notice
    assert not delivery.send_next(to(mail_server))
    assert mail_server.received == []


def test_a_mail_that_is_being_sent_is_not_sent_twice_and_locks_no_row(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    """A transport checks this in the middle of the SMTP conversation."""

    class Looking:
        def send(self, message: EmailMessage, address: str) -> None:
            assert not delivery.send_next(to(mail_server)), "another worker took it"
            connection.execute(text("SELECT FROM outgoing_mails FOR UPDATE NOWAIT"))
            to(mail_server).send(message, address)

    assert delivery.send_next(Looking())

    assert [received.address for received in mail_server.received] == [notice]


def test_a_mail_whose_sender_crashed_is_sent_once_the_lease_has_ended(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    class Crash(BaseException): ...

    class Crashing:
        def send(self, *_: object) -> None:
            raise Crash

    with pytest.raises(Crash):
        delivery.send_next(Crashing())
    assert not delivery.send_next(to(mail_server))
    assert 290 < due_in(connection)[0] <= 300

    make_due(connection)
    assert delivery.send_next(to(mail_server))

    assert [received.address for received in mail_server.received] == [notice]


def test_a_failure_that_comes_after_the_lease_leaves_the_next_attempt_alone(
    connection: Connection, notice: str
) -> None:
    class Late:
        def send(self, *_: object) -> None:
            connection.execute(text("UPDATE outgoing_mails SET attempt_count = 2, due_at = now() + interval '300 s'"))
            raise NotSent("too late")

    assert delivery.send_next(Late())

    assert notice
    assert due_in(connection)[0] > 200


@pytest.mark.parametrize("kind", ["password_reset", "email_verification"])
def test_a_second_delivery_has_a_valid_token_and_voids_the_first(
    connection: Connection, person: Person, kind: MailKind
) -> None:
    outbox.post(connection, kind, person.email)
    with MailServer("die after") as server:
        delivery.send_next(to(server))
        make_due(connection)
        server.behaviour = "accept"
        delivery.send_next(to(server))
        first, second = server.received

    assert first.token != second.token
    hashes = connection.scalars(text("SELECT token_hash FROM mail_tokens")).all()
    assert hashes == [connection.scalar(text("SELECT sha256(CAST(:token AS bytea))"), {"token": second.token})]


def test_a_bad_good_bye_after_the_mail_was_taken_is_no_failure(
    connection: Connection, notice: str, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.mail_server import _Conversation

    answer = _Conversation.answer
    monkeypatch.setattr(_Conversation, "answer", lambda self, line: not line.startswith("QUIT") and answer(self, line))

    assert delivery.send_next(to(mail_server))

    assert [received.address for received in mail_server.received] == [notice]
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


@pytest.mark.parametrize(
    "address", ["a@b.c\r\nBcc: eve@example.com", "a@b.c, eve@example.com", "Ada <a@b.c>, eve@example.com"]
)
def test_an_address_never_adds_a_header_or_a_recipient(
    connection: Connection, mail_server: MailServer, address: str
) -> None:
    """Such an address passes no sign-up, but an adopted database may hold anything."""
    outbox.post(connection, "email_changed", address)

    delivery.send_next(to(mail_server))

    assert all("eve@example.com" not in received.address.split(",") for received in mail_server.received)
    assert all(received.message["Bcc"] is None for received in mail_server.received)
    assert len(mail_server.received) <= 1


@pytest.mark.parametrize(
    ("address", "sent_to"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.Example", "ada@xn--bcher-kva.example"),
        ("ada@faß.example", "ada@xn--fa-hia.example"),
        ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
    ],
)
def test_an_internationalised_domain_needs_no_extension_of_the_mail_server(
    connection: Connection, mail_server: MailServer, address: str, sent_to: str
) -> None:
    outbox.post(connection, "email_changed", address)

    assert delivery.send_next(to(mail_server))

    (received,) = mail_server.received
    assert received.address == sent_to
    assert received.message["To"] == sent_to
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


# What a mail server must show.


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "mail.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def encrypting_server(certificate: Path) -> Iterator[MailServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with MailServer(tls=context) as server:
        yield server


def test_mail_and_login_go_to_a_trusted_server_encrypted(
    connection: Connection, notice: str, encrypting_server: MailServer, certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    delivery.send_next(Smtp("127.0.0.1", encrypting_server.port, "starttls", "name", "password", timeout_seconds=5))

    (received,) = encrypting_server.received
    assert received.is_encrypted
    assert (received.login or "").startswith("AUTH PLAIN ")
    assert received.address == notice
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


def test_a_server_without_a_trusted_certificate_gets_neither_mail_nor_login(
    connection: Connection, notice: str, encrypting_server: MailServer
) -> None:
    delivery.send_next(Smtp("127.0.0.1", encrypting_server.port, "starttls", "name", "password", timeout_seconds=5))

    assert notice
    assert encrypting_server.received == []
    assert connection.scalar(text("SELECT failure FROM outgoing_mails")) == "SSLCertVerificationError"


def test_a_server_that_offers_no_encryption_gets_neither_mail_nor_login(
    connection: Connection, notice: str, mail_server: MailServer
) -> None:
    delivery.send_next(Smtp("127.0.0.1", mail_server.port, "starttls", "name", "password", timeout_seconds=5))

    assert notice
    assert mail_server.received == []
    assert connection.scalar(text("SELECT failure FROM outgoing_mails")) == "SMTPNotSupportedError"


def test_smtp_does_not_show_its_password_when_it_is_printed() -> None:
    assert "canary" not in repr(Smtp("host", 25, "none", "name", "canary"))


@pytest.mark.parametrize(("behaviour", "kind"), [("refuse", NeverSent), ("busy", NotSent), ("hang", NotSent)])
def test_no_failure_names_an_address(behaviour: Behaviour, kind: type[NotSent]) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "a@example.com", CANARY
    with MailServer(behaviour) as server, pytest.raises(kind) as failure:
        to(server).send(message, CANARY)

    assert CANARY not in str(failure.value)
    assert failure.value.__suppress_context__


def test_in_development_a_mail_is_a_file_and_is_printed(
    connection: Connection, person: Person, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.mail")
    outbox.post(connection, "password_reset", person.email)

    assert delivery.send_next(Folder(tmp_path / "mail"))

    (file,) = (tmp_path / "mail").iterdir()
    assert file.suffix == ".eml"
    assert file.stat().st_mode & 0o077 == 0
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert message["To"] == person.email
    assert "/password-reset#token=" in caplog.text


def test_each_kind_of_mail_has_a_limit_of_its_own_for_each_recipient(
    connection: Connection, make_person: Callable[..., Person], mail_server: MailServer
) -> None:
    person = make_person(email="Ada@example.com")
    kinds: tuple[MailKind, ...] = ("password_reset", "email_verification", "password_changed", "email_changed")
    for _ in range(7):
        for kind in kinds:
            outbox.post(connection, kind, "ada@EXAMPLE.com")
    outbox.post(connection, "password_changed", "bob@example.com")
    while delivery.send_next(to(mail_server)):
        pass

    to_ada = [received.message["Subject"] for received in mail_server.received if received.address != "bob@example.com"]
    assert {subject: to_ada.count(subject) for subject in to_ada} == {
        templates.WORDS["password_reset"][0]: 3,
        templates.WORDS["email_verification"][0]: 3,
        templates.WORDS["password_changed"][0]: 5,
        templates.WORDS["email_changed"][0]: 5,
    }
    assert len(mail_server.received) == 17
    assert person.email
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


def test_mail_that_is_tried_again_counts_once(connection: Connection, mail_server: MailServer) -> None:
    for _ in range(2):
        outbox.post(connection, "email_changed", CANARY)
    with MailServer("busy") as server:
        for _ in range(4):
            delivery.send_next(to(server))
            delivery.send_next(to(server))
            make_due(connection)

    while delivery.send_next(to(mail_server)):
        pass

    assert len(mail_server.received) == 2
    assert connection.scalar(text("SELECT sum(cardinality(used_at)) FROM allowances")) == 2
