"""API keys that are created and deleted during their use, or during a password change."""

from sqlalchemy import Connection, Engine, text

from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, statuses
from tests.races.waiting import in_background, wait_until_blocked

NEW = {"name": "a program", "scopes": ["read", "write"]}


def make(crowd: Crowd, person: Person) -> tuple[int, dict[str, str]]:
    (made,) = crowd.send([Call("POST", "/api-keys", person, NEW)])
    return made.json()["id"], {"Authorization": f"Bearer {made.json()['key']}"}


def reads_by(headers: dict[str, str]) -> list[Call]:
    """Reads by a key, enough of them to meet each server."""
    return [Call("GET", "/posts", headers=headers)] * 10


def test_a_key_cached_by_both_servers_is_rejected_by_both_once_deleted_on_one(crowd: Crowd, person: Person) -> None:
    key_id, headers = make(crowd, person)
    assert statuses(crowd.send(reads_by(headers))) == {200: 10}

    assert statuses(crowd.send([Call("DELETE", f"/api-keys/{key_id}", person)])) == {204: 1}

    assert statuses(crowd.send(reads_by(headers))) == {401: 10}


def test_new_password_ends_the_keys_on_both_servers(crowd: Crowd, connection: Connection, person: Person) -> None:
    _, headers = make(crowd, person)
    assert statuses(crowd.send(reads_by(headers))) == {200: 10}

    change = {"password": "another good password", "current_password": PASSWORD}
    assert statuses(crowd.send([Call("PATCH", "/users/me", person, change)])) == {200: 1}

    assert statuses(crowd.send(reads_by(headers))) == {401: 10}
    assert count(connection, "api_keys") == 0


def test_no_key_is_made_with_a_session_that_a_new_password_is_ending(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    with database.connect() as changing:
        # As a change of password does, which has not been committed yet.
        changing.execute(text("UPDATE users SET password_hash = 'new'"))
        changing.execute(text("DELETE FROM sessions"))
        answers = in_background(lambda: crowd.send([Call("POST", "/api-keys", person, NEW)]))
        wait_until_blocked(connection, by=changing)
        changing.commit()

    assert statuses(answers()) == {401: 1}
    assert count(connection, "sessions") == 0


def test_twenty_concurrent_deletions_of_a_key_delete_it_once(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    key_id, _ = make(crowd, person)

    answers = crowd.send([Call("DELETE", f"/api-keys/{key_id}", person)] * 20)

    assert statuses(answers) == {204: 1, 404: 19}
    assert count(connection, "sessions WHERE kind = 'api_key'") == 0


def test_twenty_with_one_idempotency_key_make_one_key(crowd: Crowd, connection: Connection, person: Person) -> None:
    answers = crowd.send([Call("POST", "/api-keys", person, NEW, {"Idempotency-Key": "once"})] * 20)

    assert set(statuses(answers)) <= {201, 409}
    assert len({answer.json()["key"] for answer in answers if answer.status_code == 201}) == 1
    assert count(connection, "api_keys") == 1
