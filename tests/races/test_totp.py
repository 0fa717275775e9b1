"""Codes sent many times at once, to two processes: each allows one sign-in."""

import time
from collections.abc import Awaitable, Callable

import httpx2
import pyotp
import pytest
from sqlalchemy import Connection, Engine, text

from app import models
from app.database.sessions import transaction
from app.security import email_tokens
from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked

CROWD = 20
PROOF = {"current_password": PASSWORD}
BLOCKED_COUNT = """
    SELECT count(*) >= :n FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""
Member = Callable[[httpx2.AsyncClient], Awaitable[httpx2.Response]]


def code(secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(int(time.time()) + 30 * steps)


def signing_in(person: Person, otp: str) -> Member:
    form = {"username": person.email, "password": PASSWORD, "otp": otp}
    return lambda client: client.post("/login", data=form)


@pytest.fixture
def secret(crowd: Crowd, person: Person) -> str:
    """The secret of a second factor that is not confirmed yet."""
    (begun,) = crowd.send([Call("POST", "/users/me/totp", person, PROOF)])
    return str(begun.json()["secret"])


@pytest.fixture
def recovery_codes(crowd: Crowd, person: Person, secret: str) -> list[str]:
    """The secret of an enabled second factor."""
    (confirmed,) = crowd.send([Call("POST", "/users/me/totp/confirm", person, {"code": code(secret)})])
    codes: list[str] = confirmed.json()["recovery_codes"]
    return codes


@pytest.mark.usefixtures("recovery_codes")
def test_twenty_sign_ins_with_one_code_open_one_session(
    crowd: Crowd, connection: Connection, person: Person, secret: str
) -> None:
    # Of the next step: that of this one may be the code that confirmed.
    answers = crowd.run([signing_in(person, code(secret, 1))] * CROWD)

    assert statuses(answers) == {200: 1, 403: CROWD - 1}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"invalid_credentials"}
    assert count(connection, "sessions WHERE id <> :own", own=person.session_id) == 1


def test_twenty_sign_ins_with_one_recovery_code_open_one_session(
    crowd: Crowd, connection: Connection, person: Person, recovery_codes: list[str]
) -> None:
    answers = crowd.run([signing_in(person, recovery_codes[0])] * CROWD)

    assert statuses(answers) == {200: 1, 403: CROWD - 1}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"invalid_credentials"}
    assert count(connection, "sessions WHERE id <> :own", own=person.session_id) == 1
    assert count(connection, "recovery_codes") == 9


def test_twenty_concurrent_confirmations_enable_it_once(
    crowd: Crowd, connection: Connection, person: Person, secret: str
) -> None:
    answers = crowd.send([Call("POST", "/users/me/totp/confirm", person, {"code": code(secret)})] * CROWD)

    assert statuses(answers) == {200: 1, 409: CROWD - 1}
    assert count(connection, "recovery_codes") == 10
    (codes,) = [answer.json()["recovery_codes"] for answer in answers if answer.status_code == 200]
    assert statuses(crowd.run([signing_in(person, each) for each in codes])) == {200: 10}


def test_twenty_concurrent_enrolments_leave_one_secret_that_one_of_them_was_given(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    answers = crowd.send([Call("POST", "/users/me/totp", person, PROOF)] * CROWD)

    assert statuses(answers) == {200: CROWD}
    assert count(connection, "totps") == 1
    secrets = {answer.json()["secret"] for answer in answers}
    assert len(secrets) == CROWD
    confirmations = [Call("POST", "/users/me/totp/confirm", person, {"code": code(each)}) for each in secrets]
    # One has the secret that is there. The others are wrong, or come after it.
    assert statuses(crowd.send(confirmations))[200] == 1


def test_confirming_and_deleting_the_account_at_once_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, secret: str
) -> None:
    before = deadlocks(connection)
    with database.begin() as third:
        third.execute(text("SELECT FROM totps FOR UPDATE"))
        confirmation = in_background(
            lambda: crowd.send([Call("POST", "/users/me/totp/confirm", person, {"code": code(secret)})])
        )
        wait_until_blocked(connection, by=third)
        deletion = in_background(lambda: crowd.send([Call("DELETE", "/users/me", person)]))
        time.sleep(0.3)  # The second waits behind the first, or for the third.

    assert statuses(confirmation()) == {200: 1}
    assert statuses(deletion()) == {204: 1}
    assert count(connection, "totps") == count(connection, "recovery_codes") == 0
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def reset_token(person: Person) -> str:
    with transaction() as db:
        user = db.get(models.User, person.id)
        assert user is not None
        return email_tokens.issue(db, user, "password_reset")


@pytest.mark.parametrize("is_verified", [False, True])
def test_second_factor_that_is_confirmed_while_the_password_is_reset_is_refused(
    crowd: Crowd,
    connection: Connection,
    database: Engine,
    make_person: Callable[..., Person],
    *,
    is_verified: bool,
) -> None:
    person = make_person(is_verified=is_verified)
    (begun,) = crowd.send([Call("POST", "/users/me/totp", person, PROOF)])
    reset = {"token": reset_token(person), "password": "a new password"}

    with database.begin() as third:
        third.execute(text("SELECT FROM mail_tokens FOR UPDATE"))
        resetting = in_background(lambda: crowd.send([Call("POST", "/password-reset/confirm", json=reset)]))
        wait_until_blocked(connection, by=third)  # The reset has locked the account.
        confirmation = Call("POST", "/users/me/totp/confirm", person, {"code": code(begun.json()["secret"])})
        confirming = in_background(lambda: crowd.send([confirmation]))
        wait_until(connection, BLOCKED_COUNT, n=2)

    assert statuses(resetting()) == {204: 1}
    assert statuses(confirming()) == {401: 1}
    assert count(connection, "totps WHERE confirmed_at IS NOT NULL") == count(connection, "recovery_codes") == 0
    (signed_in,) = crowd.run([lambda client: client.post("/login", data=form_of(person))])
    assert signed_in.status_code == 200


def test_second_factor_that_is_confirmed_just_before_the_reset_of_an_unverified_address_is_dropped(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, secret: str
) -> None:
    reset = {"token": reset_token(person), "password": "a new password"}

    with database.begin() as third:
        third.execute(text("SELECT FROM totps FOR UPDATE"))
        confirmation = Call("POST", "/users/me/totp/confirm", person, {"code": code(secret)})
        confirming = in_background(lambda: crowd.send([confirmation]))
        wait_until_blocked(connection, by=third)
        resetting = in_background(lambda: crowd.send([Call("POST", "/password-reset/confirm", json=reset)]))
        wait_until(connection, BLOCKED_COUNT, n=2)

    assert statuses(confirming()) == {200: 1}
    assert statuses(resetting()) == {204: 1}
    assert count(connection, "totps") == count(connection, "recovery_codes") == 0


def form_of(person: Person) -> dict[str, str]:
    return {"username": person.email, "password": "a new password"}
