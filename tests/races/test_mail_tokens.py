"""A mailed token used many times at once, and concurrent changes to its account."""

from collections.abc import Callable, Sequence

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app import models
from app.database.sessions import transaction
from app.models import MailTokenPurpose
from app.security import email_tokens
from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked


def token_of(person: Person, purpose: MailTokenPurpose = "password_reset") -> str:
    with transaction() as db:
        user = db.get(models.User, person.id)
        assert user is not None
        return email_tokens.issue(db, user, purpose)


def reset(token: str, password: str) -> Call:
    return Call("POST", "/password-reset/confirm", json={"token": token, "password": password})


def sign_ins(crowd: Crowd, person: Person, passwords: Sequence[str]) -> list[str]:
    """Return which of the passwords sign in."""

    async def sign_in(client: httpx2.AsyncClient, password: str) -> bool:
        form = {"username": person.email, "password": password}
        return (await client.post("/login", data=form)).status_code == 200

    opens = crowd.run([lambda client, password=password: sign_in(client, password) for password in passwords])  # type: ignore[misc]
    return [password for password, is_open in zip(passwords, opens, strict=True) if is_open]


def test_a_reset_token_brought_twenty_times_at_once_works_exactly_once(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    for _ in range(5):
        person = make_person()
        passwords = [f"new password {n}" for n in range(20)]
        token = token_of(person)

        answers = crowd.send([reset(token, password) for password in passwords])

        assert statuses(answers) == {204: 1, 403: 19}
        (winner,) = (password for password, answer in zip(passwords, answers, strict=True) if answer.is_success)
        assert sign_ins(crowd, person, [*passwords[:3], winner]) in ([winner], [winner, winner])
        assert count(connection, "outgoing_mails WHERE address = :email", email=person.email) == 1
        assert count(connection, "security_events WHERE user_id = :id AND event = 'password_reset'", id=person.id) == 1


def test_a_verification_token_brought_twenty_times_at_once_works_exactly_once(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    call = Call("POST", "/email-verification/confirm", json={"token": token_of(person, "email_verification")})

    assert statuses(crowd.send([call] * 20)) == {204: 1, 403: 19}

    assert count(connection, "security_events WHERE event = 'email_verified'") == 1
    assert count(connection, "users WHERE email_verified_at IS NOT NULL") == 1


WAITING = {
    "the address changes": "UPDATE users SET email = 'new@example.com', email_canonical = 'new@example.com'",
    "the account is disabled": "UPDATE users SET is_active = false",
    "the account is deleted": "DELETE FROM users",
    "a newer token is issued": "UPDATE mail_tokens SET token_hash = '' WHERE (SELECT true FROM users FOR UPDATE)",
}


@pytest.mark.parametrize("meanwhile", WAITING)
@pytest.mark.parametrize("purpose", ["password_reset", "email_verification"])
def test_a_token_is_void_if_that_happens_while_it_is_being_used(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, meanwhile: str, purpose: MailTokenPurpose
) -> None:
    token = token_of(person, purpose)
    call = reset(token, "a whole new password")
    if purpose == "email_verification":
        call = Call("POST", "/email-verification/confirm", json={"token": token})

    with database.begin() as changing:
        changing.execute(text(WAITING[meanwhile]))
        answers = in_background(lambda: crowd.send([call]))
        wait_until_blocked(connection, by=changing)

    assert statuses(answers()) == {403: 1}
    changed = "security_events WHERE event IN ('password_reset', 'email_verified')"
    assert count(connection, changed) == 0
    assert count(connection, "users WHERE email_verified_at IS NOT NULL") == 0


def test_concurrent_resets_deletions_and_new_tokens_do_not_deadlock(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    before = deadlocks(connection)
    for _ in range(10):
        people = [make_person() for _ in range(4)]
        calls = [
            call
            for person in people
            for call in (
                reset(token_of(person), "a whole new password"),
                Call("DELETE", "/users/me", person),
                Call("PATCH", "/users/me", person, {"email": f"x{person.email}", "current_password": PASSWORD}),
                Call("POST", "/email-verification", person),
            )
        ]
        answers = crowd.send(calls)
        assert {answer.status_code for answer in answers} <= {200, 202, 204, 401, 403}
    assert deadlocks(connection) == before
    assert count(connection, "mail_tokens LEFT JOIN users ON users.id = user_id WHERE users.id IS NULL") == 0


def test_two_changes_of_the_address_at_once_tell_the_verified_address_once(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person]
) -> None:
    person, admin = make_person(email="first@example.com", is_verified=True), make_person(role="admin")
    path = f"/users/{person.id}"

    with database.begin() as holding:
        holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": person.id})
        answers = in_background(
            lambda: crowd.send([Call("PATCH", path, admin, {"email": f"{n}@example.com"}) for n in ("a", "b")])
        )
        # The second waits behind the first, not for this transaction.
        waiting = "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database()"
        wait_until(connection, f"{waiting} AND wait_event_type = 'Lock'")

    assert statuses(answers()) == {200: 2}
    mails = connection.execute(text("SELECT kind, address FROM outgoing_mails ORDER BY kind, address")).all()
    # The address in between was never verified.
    assert [tuple(mail) for mail in mails] == [
        ("email_changed", "first@example.com"),
        ("email_verification", "a@example.com"),
        ("email_verification", "b@example.com"),
    ]
    assert count(connection, "security_events WHERE event = 'email_changed'") == 2
    is_last = "users WHERE email_verified_at IS NULL AND email IN ('a@example.com', 'b@example.com')"
    assert count(connection, is_last) == 1
