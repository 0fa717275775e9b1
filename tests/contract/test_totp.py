"""Two-factor authentication: enrolment, sign-in, and loss of the app."""

import hashlib
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2
import pyotp
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person
from tests.races.waiting import wait_until

PROOF = {"current_password": PASSWORD}
STEP = "SELECT last_step FROM totps"


class Clock:
    """The server's clock, stopped in the middle of a step until a test moves it."""

    def __init__(self) -> None:
        self.now = time.time() // 30 * 30 + 15

    def time(self) -> float:
        return self.now

    def step(self, steps: int) -> None:
        self.now += 30 * steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    from app.services import totp

    clock = Clock()
    monkeypatch.setattr(totp, "time", clock)
    return clock


class Authenticator:
    """A user's authenticator app, and the recovery codes that they wrote down."""

    def __init__(self, client: TestClient, person: Person, clock: Clock) -> None:
        self.client, self.person, self.clock = client, person, clock
        self.secret = client.post("/users/me/totp", json=PROOF, headers=person.headers).json()["secret"]
        self.recovery_codes: list[str] = []

    def code(self, steps: int = 0) -> str:
        """Return the code that the app shows, now or some steps from now."""
        return pyotp.TOTP(self.secret).at(int(self.clock.now) + 30 * steps)

    def wrong_code(self) -> str:
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(code for code in ("000000", "000001", "000002", "000003", "000004", "000005", "000006", "000007")
                    if code not in near)  # fmt: skip

    def confirm(self) -> None:
        """Enable it, and wait for the next code."""
        response = self.client.post("/users/me/totp/confirm", json={"code": self.code()}, headers=self.person.headers)
        assert response.status_code == 200, response.text
        self.recovery_codes = response.json()["recovery_codes"]
        self.clock.step(1)

    def sign_in(self, otp: str | None, password: str = PASSWORD) -> httpx2.Response:
        form = {"username": self.person.email, "password": password} | ({} if otp is None else {"otp": otp})
        return self.client.post("/login", data=form)


@pytest.fixture
def begun(client: TestClient, person: Person, clock: Clock) -> Authenticator:
    """An app with the secret, which is not confirmed yet."""
    return Authenticator(client, person, clock)


@pytest.fixture
def app(begun: Authenticator) -> Authenticator:
    """Enable the second factor, so that every sign-in requires a code."""
    begun.confirm()
    return begun


# Setting it up.


def test_setting_up_gives_the_secret_in_three_forms_and_changes_no_sign_in(
    client: TestClient, person: Person, rows: Rows
) -> None:
    response = client.post("/users/me/totp", json=PROOF, headers=person.headers)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert set(body) == {"secret", "uri", "qr_svg"}
    assert re.fullmatch(r"[A-Z2-7]{32}", body["secret"])
    uri = urlsplit(body["uri"])
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", f"/Social posts:{person.email}")
    assert parse_qs(uri.query) == {"secret": [body["secret"]], "issuer": ["Social posts"]}
    assert ET.fromstring(body["qr_svg"]).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - it is ours.
    assert rows("SELECT user_id, confirmed_at FROM totps") == [(person.id, None)]
    assert client.post("/login", data={"username": person.email, "password": PASSWORD}).status_code == 200


def test_the_secret_is_encrypted_at_rest_and_recovery_codes_are_hashed(app: Authenticator, rows: Rows) -> None:
    ((sealed,),) = rows("SELECT sealed_secret FROM totps")
    hashes = {bytes(code_hash) for (code_hash,) in rows("SELECT code_hash FROM recovery_codes")}

    assert app.secret.encode() not in bytes(sealed)
    assert len(app.recovery_codes) == 10
    assert all(re.fullmatch(r"[a-z2-7]{4}(-[a-z2-7]{4}){3}", code) for code in app.recovery_codes)
    assert hashes == {hashlib.sha256(code.replace("-", "").encode()).digest() for code in app.recovery_codes}


def test_a_repeated_enrolment_before_confirmation_replaces_the_secret(
    begun: Authenticator, client: TestClient, person: Person, rows: Rows
) -> None:
    old = begun.code()
    begun.secret = client.post("/users/me/totp", json=PROOF, headers=person.headers).json()["secret"]
    assert old != begun.code()

    refused = client.post("/users/me/totp/confirm", json={"code": old}, headers=person.headers)

    assert_refused(refused, 403, "wrong_code")
    begun.confirm()
    assert rows("SELECT confirmed_at IS NOT NULL FROM totps") == [(True,)]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_setting_up_and_disabling_need_the_password(
    client: TestClient, begun: Authenticator, person: Person, rows: Rows, method: str
) -> None:
    before = rows("SELECT totps::text FROM totps")

    wrong = client.request(method, "/users/me/totp", json={"current_password": "wrong"}, headers=person.headers)
    missing = client.request(method, "/users/me/totp", json={}, headers=person.headers)

    assert_refused(wrong, 403, "wrong_password")
    assert_refused(missing, 422, "validation_failed")
    assert rows("SELECT totps::text FROM totps") == before
    assert begun.sign_in(None).status_code == 200


def test_an_enabled_second_factor_is_neither_begun_nor_confirmed_again(
    client: TestClient, app: Authenticator, person: Person, rows: Rows
) -> None:
    before = rows("SELECT totps::text, array_agg(code_hash)::text FROM totps JOIN recovery_codes USING (user_id) "
                  "GROUP BY 1")  # fmt: skip

    assert_refused(client.post("/users/me/totp", json=PROOF, headers=person.headers), 409, "totp_enabled")
    confirming = client.post("/users/me/totp/confirm", json={"code": app.code()}, headers=person.headers)
    assert_refused(confirming, 409, "totp_enabled")

    assert rows("SELECT totps::text, array_agg(code_hash)::text FROM totps JOIN recovery_codes USING (user_id) "
                "GROUP BY 1") == before  # fmt: skip


def test_confirming_without_an_enrolment_is_not_found(client: TestClient, person: Person, rows: Rows) -> None:
    response = client.post("/users/me/totp/confirm", json={"code": "123456"}, headers=person.headers)

    assert_refused(response, 404, "totp_not_found")
    assert_refused(
        client.request("DELETE", "/users/me/totp", json=PROOF, headers=person.headers), 404, "totp_not_found"
    )
    assert rows("SELECT 1 FROM totps") == []


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "\uff11" * 6, "12 34 5", "x" * 64, "\0"])
def test_a_malformed_code_confirms_nothing(
    client: TestClient, begun: Authenticator, person: Person, rows: Rows, code: str
) -> None:
    response = client.post("/users/me/totp/confirm", json={"code": code}, headers=person.headers)

    assert_refused(response, 403, "wrong_code")
    assert rows("SELECT confirmed_at FROM totps") == [(None,)]
    assert begun.sign_in(None).status_code == 200


def test_recovery_codes_are_given_again_to_the_same_idempotency_key_and_kept_encrypted(
    client: TestClient, begun: Authenticator, person: Person, rows: Rows
) -> None:
    headers = person.headers | {"Idempotency-Key": "confirm-once"}
    body = {"code": begun.code()}

    first = client.post("/users/me/totp/confirm", json=body, headers=headers)
    again = client.post("/users/me/totp/confirm", json=body, headers=headers)

    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-store"
    ((kept,),) = rows("SELECT body FROM idempotency_keys")
    assert first.json()["recovery_codes"][0].encode() not in bytes(kept)
    assert rows("SELECT count(*) FROM recovery_codes") == [(10,)]


def test_the_status_shows_whether_it_is_enabled_and_how_many_codes_are_left(
    client: TestClient, begun: Authenticator, person: Person
) -> None:
    def state() -> Any:
        return client.get("/users/me/totp", headers=person.headers).json()

    assert state() == {"enabled": False, "recovery_codes_left": 0}
    begun.confirm()
    assert state() == {"enabled": True, "recovery_codes_left": 10}
    begun.sign_in(begun.recovery_codes[0])
    assert state() == {"enabled": True, "recovery_codes_left": 9}


# Signing in.


def test_the_right_password_alone_is_answered_with_otp_required(app: Authenticator, rows: Rows) -> None:
    sessions = rows("SELECT id FROM sessions")

    for otp in (None, "", " "):
        assert_refused(app.sign_in(otp), 403, "otp_required")

    assert rows("SELECT id FROM sessions") == sessions


def test_a_wrong_password_is_refused_alike_with_and_without_a_second_factor(
    app: Authenticator, client: TestClient, other: Person, rows: Rows
) -> None:
    sessions, step = rows("SELECT id FROM sessions"), rows(STEP)

    for otp in (None, app.code(), app.recovery_codes[0], app.wrong_code()):
        assert_refused(app.sign_in(otp, "wrong"), 403, "invalid_credentials", "Invalid Credentials")
    without = client.post("/login", data={"username": other.email, "password": "wrong", "otp": "123456"})
    assert_refused(without, 403, "invalid_credentials", "Invalid Credentials")

    assert rows("SELECT id FROM sessions") == sessions
    assert rows(STEP) == step
    assert rows("SELECT count(*) FROM recovery_codes") == [(10,)]


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_the_code_of_this_step_and_of_those_beside_it_signs_in(app: Authenticator, steps: int) -> None:
    app.clock.step(3)

    response = app.sign_in(app.code(steps))

    assert response.status_code == 200
    assert response.json()["token_type"] == "bearer"


@pytest.mark.parametrize("steps", [-20, -3, -2, 2, 3, 20])
def test_a_code_of_another_time_is_refused(app: Authenticator, rows: Rows, steps: int) -> None:
    app.clock.step(40)
    step = rows(STEP)

    assert_refused(app.sign_in(app.code(steps)), 403, "invalid_credentials", "Invalid Credentials")

    assert rows(STEP) == step


def test_a_code_is_accepted_once_and_earlier_codes_no_more(app: Authenticator, rows: Rows) -> None:
    app.clock.step(3)
    assert app.sign_in(app.code(1)).status_code == 200
    sessions = rows("SELECT id FROM sessions")

    for steps in (1, 0, -1):
        assert_refused(app.sign_in(app.code(steps)), 403, "invalid_credentials", "Invalid Credentials")

    assert rows("SELECT id FROM sessions") == sessions
    app.clock.step(2)
    assert app.sign_in(app.code()).status_code == 200


def test_the_code_that_confirmed_does_not_sign_in(begun: Authenticator) -> None:
    code = begun.code()
    begun.confirm()

    assert_refused(begun.sign_in(code), 403, "invalid_credentials", "Invalid Credentials")
    assert begun.sign_in(begun.code()).status_code == 200


@pytest.mark.parametrize("spelling", ["{} {}", " {}{} ", "{}-{}"])
def test_a_code_may_have_gaps(app: Authenticator, spelling: str) -> None:
    code = app.code()

    assert app.sign_in(spelling.format(code[:3], code[3:])).status_code == 200


@pytest.mark.parametrize("spell", [str, str.upper, lambda code: code.replace("-", ""), lambda code: f" {code} "])
def test_a_recovery_code_signs_in_once(app: Authenticator, rows: Rows, spell: Callable[[str], str]) -> None:
    code = spell(app.recovery_codes[3])

    assert app.sign_in(code).status_code == 200
    assert_refused(app.sign_in(code), 403, "invalid_credentials", "Invalid Credentials")

    assert rows("SELECT count(*) FROM recovery_codes") == [(9,)]
    assert app.sign_in(app.recovery_codes[4]).status_code == 200


def test_codes_of_another_account_are_rejected(
    app: Authenticator, client: TestClient, other: Person, clock: Clock, rows: Rows
) -> None:
    theirs = Authenticator(client, other, clock)
    theirs.confirm()

    for otp in (theirs.code(), theirs.recovery_codes[0]):
        assert_refused(app.sign_in(otp), 403, "invalid_credentials", "Invalid Credentials")

    assert rows("SELECT count(*) FROM recovery_codes") == [(20,)]
    assert theirs.sign_in(theirs.recovery_codes[0]).status_code == 200


def test_an_otp_is_ignored_where_none_is_required(client: TestClient, person: Person) -> None:
    form = {"username": person.email, "password": PASSWORD, "otp": "123456"}

    assert client.post("/login", data=form).status_code == 200


def test_after_five_wrong_codes_only_a_recovery_code_signs_in(app: Authenticator, rows: Rows) -> None:
    step = rows(STEP)
    for _ in range(5):
        assert_refused(app.sign_in(app.wrong_code()), 403, "invalid_credentials", "Invalid Credentials")

    refused = app.sign_in(app.code())

    assert_refused(refused, 429, "too_many_tries")
    assert int(refused.headers["Retry-After"]) > 0
    assert rows(STEP) == step
    assert app.sign_in(app.recovery_codes[0]).status_code == 200


def test_after_five_wrong_codes_none_confirms(begun: Authenticator, client: TestClient, rows: Rows) -> None:
    def confirm(code: str) -> httpx2.Response:
        return client.post("/users/me/totp/confirm", json={"code": code}, headers=begun.person.headers)

    for _ in range(5):
        assert_refused(confirm(begun.wrong_code()), 403, "wrong_code")

    assert_refused(confirm(begun.code()), 429, "too_many_tries")
    assert rows("SELECT confirmed_at FROM totps") == [(None,)]


def test_the_owner_is_notified_of_a_wrong_or_replayed_code(
    app: Authenticator, connection: Connection, person: Person
) -> None:
    code = app.code()
    app.sign_in(app.wrong_code())
    assert app.sign_in(code).status_code == 200
    app.sign_in(code)

    recorded = "SELECT count(*) = 2 FROM security_events WHERE user_id = :id AND event = 'totp_failed'"
    wait_until(connection, recorded, id=person.id)


def test_right_codes_use_up_no_attempts(app: Authenticator) -> None:
    for _ in range(7):
        assert app.sign_in(app.code()).status_code == 200
        app.clock.step(1)


# Losing it, and the end.


def test_once_disabled_it_is_not_required_and_its_codes_are_void(
    client: TestClient, app: Authenticator, person: Person, rows: Rows
) -> None:
    assert client.request("DELETE", "/users/me/totp", json=PROOF, headers=person.headers).status_code == 204

    assert rows("SELECT 1 FROM totps UNION ALL SELECT 1 FROM recovery_codes") == []
    assert app.sign_in(None).status_code == 200


def test_without_the_key_codes_are_wrong_and_recovery_codes_still_sign_in(
    app: Authenticator, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    rows("UPDATE totps SET sealed_secret = 'gAAAAA' RETURNING 1")

    assert_refused(app.sign_in(app.code()), 403, "invalid_credentials", "Invalid Credentials")

    assert f"TOTP secret cannot be decrypted user_id={app.person.id}" in caplog.text
    assert app.sign_in(app.recovery_codes[0]).status_code == 200


def test_a_new_secret_key_keeps_second_factors_enabled_and_encrypts_them_anew(
    app: Authenticator, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    settings = get_settings()
    ((before,),) = rows("SELECT sealed_secret FROM totps")
    monkeypatch.setattr(settings, "secret_key_previous", [SecretStr(settings.signing_secret)])
    monkeypatch.setattr(settings, "secret_key", SecretStr("n" * 40))

    assert app.sign_in(app.code()).status_code == 200

    ((after,),) = rows("SELECT sealed_secret FROM totps")
    assert bytes(after) != bytes(before)
    monkeypatch.setattr(settings, "secret_key_previous", None)
    app.clock.step(1)
    assert app.sign_in(app.code()).status_code == 200
    assert rows("SELECT sealed_secret FROM totps") == [(after,)]


def test_no_secret_and_no_code_is_logged(
    client: TestClient, begun: Authenticator, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    used, wrong = begun.code(), begun.wrong_code()
    begun.confirm()
    begun.sign_in(used)
    begun.sign_in(wrong)
    begun.sign_in(begun.recovery_codes[0])
    client.request("DELETE", "/users/me/totp", json={"current_password": "canary"}, headers=person.headers)

    for secret in (begun.secret, used, wrong, begun.recovery_codes[0], "canary", PASSWORD):
        assert secret not in caplog.text
    assert "totp_enabled" in caplog.text
    assert "totp_failed" in caplog.text
    assert "recovery_code_used" in caplog.text
