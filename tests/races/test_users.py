"""Sign-ups and changes that want the same name at once."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked


def cased(word: str, number: int) -> str:
    """The word in one of 2^n cases."""
    return "".join(letter.upper() if number >> place & 1 else letter for place, letter in enumerate(word))


def test_forty_sign_ups_with_one_address_in_different_case_make_one_account(
    crowd: Crowd, connection: Connection
) -> None:
    calls = [
        Call("POST", "/users", json={"email": f"{cased('grace', n)}@{cased('example', n)}.com", "password": PASSWORD})
        for n in range(40)
    ]

    answers = crowd.send(calls)

    assert statuses(answers) == {201: 1, 409: 39}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"email_taken"}
    assert count(connection, "users") == 1


def test_forty_sign_ups_with_one_username_in_different_case_make_one_account(
    crowd: Crowd, connection: Connection
) -> None:
    calls = [
        Call("POST", "/users", json={"email": f"{n}@example.com", "password": PASSWORD, "username": cased("hopper", n)})
        for n in range(40)
    ]

    answers = crowd.send(calls)

    assert statuses(answers) == {201: 1, 409: 39}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"username_taken"}
    assert count(connection, "users") == 1


def test_two_who_swap_usernames_are_refused_and_keep_their_names(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(username="ada"), make_person(username="bob")

    for _ in range(10):
        answers = crowd.send(
            [
                Call("PATCH", "/users/me", ada, {"username": "bob"}),
                Call("PATCH", "/users/me", bob, {"username": "ada"}),
            ]
        )
        assert statuses(answers) == {409: 2}
    names = connection.execute(text("SELECT id, username FROM users ORDER BY id")).all()
    assert [tuple(row) for row in names] == [(ada.id, "ada"), (bob.id, "bob")]


def test_swap_that_deadlocks_in_the_database_is_refused_with_409_not_503(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(username="ada"), make_person(username="bob")

    def change(caller: Person, wanted: str) -> Call:
        new = {"username": wanted, "email": f"new-{wanted}@example.com", "current_password": PASSWORD}
        return Call("PATCH", "/users/me", caller, new)

    with database.connect() as reserving:
        # Both have changed their row when they meet this address, and go on to the name only when it is free:
        # then each waits for the other.
        reserving.execute(
            text("""
                INSERT INTO users (email, email_canonical, password_hash)
                VALUES ('', 'new-ada@example.com', ''), ('', 'new-bob@example.com', '')
            """)
        )
        answers = in_background(lambda: crowd.send([change(ada, "bob"), change(bob, "ada")]))
        wait_until_blocked(connection, by=reserving, waiting_count=2)
        reserving.rollback()

    assert statuses(answers()) == {409: 2}
    names = connection.execute(text("SELECT id, username FROM users ORDER BY id")).all()
    assert [tuple(row) for row in names] == [(ada.id, "ada"), (bob.id, "bob")]


@pytest.mark.parametrize("change", [{"role": "user"}, {"is_active": False}, None], ids=["demote", "disable", "delete"])
def test_two_admins_who_remove_each_other_at_once_leave_one(
    crowd: Crowd,
    connection: Connection,
    database: Engine,
    make_person: Callable[..., Person],
    change: dict[str, object] | None,
) -> None:
    ada, bob = make_person(role="admin"), make_person(role="admin")
    method = "PATCH" if change else "DELETE"
    calls = [Call(method, f"/users/{bob.id}", ada, change), Call(method, f"/users/{ada.id}", bob, change)]

    with database.connect() as holding:
        # Both have read who they are, and that they are admins, when they come to these rows.
        holding.execute(text("SELECT FROM users ORDER BY id FOR UPDATE"))
        answers = in_background(lambda: crowd.send(calls))
        waiting = "pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        wait_until(connection, f"SELECT count(*) >= 2 FROM {waiting}")
        holding.rollback()

    statuses_in_order = sorted(statuses(answers()))
    assert statuses_in_order == [204 if change is None else 200, 409]
    assert count(connection, "users WHERE role = 'admin' AND is_active") == 1
