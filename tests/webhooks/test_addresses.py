"""Requests go to public addresses only, whatever a name resolves to, and the certificate must fit the name."""

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from app.config import get_settings
from app.webhooks import http_client
from tests.programs import find_program
from tests.webhooks.conftest import Receiver


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let every name resolve to the next of these answers; return the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def post(url: str) -> int:
    return asyncio.run(http_client.post(url, {"X-Test": "1"}, b"{}"))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["192.0.0.192"],
        ["93.184.215.14", "127.0.0.1"],
    ],
)
def test_a_name_that_resolves_to_an_address_that_is_not_public_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, addresses: list[str]
) -> None:
    monkeypatch.setattr(get_settings(), "webhook_allowed_networks", None)
    resolve_to(monkeypatch, addresses)

    with pytest.raises(http_client.NotDelivered, match="not public"):
        post(f"http://rebind.example:{receiver.server_address[1]}/")

    time.sleep(0.1)
    assert receiver.received == []


def test_a_name_is_resolved_once_and_the_request_goes_to_the_address_that_was_examined(
    monkeypatch: pytest.MonkeyPatch, make_receiver: Callable[[], Receiver]
) -> None:
    """A server of names that answers otherwise the second time gains nothing."""
    first = make_receiver()
    asked = resolve_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])

    assert post(f"http://rebind.example:{first.server_address[1]}/path?x=%20") == 204

    assert asked == ["rebind.example"]
    [(headers, _)] = first.received
    assert headers["host"] == f"rebind.example:{first.server_address[1]}"
    assert headers["x-test"] == "1"


@pytest.mark.parametrize("name", ["localhost", "no-such-name.invalid"])
def test_names_of_this_machine_and_unknown_names_are_not_reached(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, name: str
) -> None:
    monkeypatch.setattr(get_settings(), "webhook_allowed_networks", None)

    with pytest.raises(http_client.NotDelivered, match=r"not public|cannot be resolved|no answer"):
        post(f"http://{name}:{receiver.server_address[1]}/")

    assert receiver.received == []


Answer = Callable[[socket.socket], None]


@pytest.fixture
def serve(receiver: Receiver) -> Iterator[Callable[[Answer], str]]:  # noqa: ARG001 - allows loopback.
    """Start a server that answers one connection with a function; return its URL."""
    with ExitStack() as stack:

        def start(answer: Answer) -> str:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    answer(connection)
                    while connection.recv(65_536):
                        pass

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            return f"http://127.0.0.1:{listening.getsockname()[1]}/"

        yield start


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"H")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"), "not HTTP"),
        (lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), "not HTTP|longer"),
        (lambda connection: connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000), "longer"),
        (lambda connection: connection.shutdown(socket.SHUT_RDWR), "closed|not HTTP"),
        (lambda _: None, "no answer within"),
        (drip, "no answer within"),
    ],
    ids=["another protocol", "long head", "endless heads", "closed", "silent", "slow"],
)
def test_answers_are_bounded_in_time_and_bytes(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[Answer], str], answer: Answer, reason: str
) -> None:
    monkeypatch.setattr(http_client, "MAX_SECONDS", 0.5)
    url = serve(answer)
    began_at = time.monotonic()

    with pytest.raises(http_client.NotDelivered, match=reason):
        post(url)

    assert time.monotonic() - began_at < 5


def test_a_long_body_is_not_read_to_its_end(serve: Callable[[Answer], str]) -> None:
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10_000):
            sent += connection.send(b"x" * 100_000)

    assert post(serve(answer)) == 200

    assert sent < 50_000_000


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(("name", "is_trusted"), [("hooks.example", True), ("other.example", False)])
def test_the_certificate_must_fit_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver, name: str, *, is_trusted: bool
) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        [find_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-subj", "/CN=hooks.example", "-days", "2",
         "-addext", "subjectAltName=DNS:hooks.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(http_client, "tls_context", ssl.create_default_context)
    resolve_to(monkeypatch, ["127.0.0.1"])
    url = f"https://{name}:{receiver.server_address[1]}/"

    if is_trusted:
        assert post(url) == 204
    else:
        with pytest.raises(http_client.NotDelivered, match="certificate is not valid"):
            post(url)
    assert len(receiver.received) == is_trusted
