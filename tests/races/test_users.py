"""Concurrent sign-ups and changes to the same name."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked

BLOCKED_COUNT = """
    SELECT count(*) >= :n FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""


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


def test_two_users_who_swap_usernames_are_refused_and_keep_their_names(
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


@pytest.mark.parametrize(
    ("change", "refusal"),
    [({"role": "user"}, 403), ({"is_active": False}, 401), (None, 401)],
    ids=["demote", "disable", "delete"],
)
def test_two_admins_who_remove_each_other_at_once_leave_one(
    crowd: Crowd,
    connection: Connection,
    database: Engine,
    make_person: Callable[..., Person],
    change: dict[str, object] | None,
    refusal: int,
) -> None:
    ada, bob = make_person(role="admin"), make_person(role="admin")
    method = "PATCH" if change else "DELETE"
    calls = [Call(method, f"/users/{bob.id}", ada, change), Call(method, f"/users/{ada.id}", bob, change)]

    with database.connect() as holding:
        # Both have authenticated as admins before they reach these rows.
        holding.execute(text("SELECT FROM users ORDER BY id FOR UPDATE"))
        answers = in_background(lambda: crowd.send(calls))
        wait_until(connection, BLOCKED_COUNT, n=2)
        holding.rollback()

    # The second is no admin any more when it gets the lock.
    assert sorted(statuses(answers())) == [204 if change is None else 200, refusal]
    assert count(connection, "users WHERE role = 'admin' AND is_active") == 1


def test_two_admins_who_rename_each_other_at_once_both_succeed(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    """Each locks the other's account, then holds its own: a deadlock runs one of them again."""
    ada, bob = make_person(role="admin"), make_person(role="admin")

    for number in range(5):
        calls = [
            Call("PATCH", f"/users/{bob.id}", ada, {"username": f"bob{number}"}),
            Call("PATCH", f"/users/{ada.id}", bob, {"username": f"ada{number}"}),
        ]
        assert statuses(crowd.send(calls)) == {200: 2}

    names = connection.scalars(text("SELECT username FROM users ORDER BY id")).all()
    assert names == ["ada4", "bob4"]


ENDINGS = {
    "demoted": ("UPDATE users SET role = 'user' WHERE id = :id", 403, "not_authorized"),
    "disabled": ("UPDATE users SET is_active = false WHERE id = :id", 401, "not_authenticated"),
    "deleted": ("DELETE FROM users WHERE id = :id", 401, "not_authenticated"),
}
ADMIN_ACTIONS: dict[str, tuple[str, dict[str, object] | None]] = {
    "rename": ("PATCH", {"username": "renamed"}),
    "take over": ("PUT", {"email": "taken@example.com", "password": "a new password"}),
    "promote": ("PATCH", {"role": "admin"}),
    "disable": ("PATCH", {"is_active": False}),
    "delete": ("DELETE", None),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("action", ADMIN_ACTIONS)
@pytest.mark.parametrize("held_at", ["the target", "the caller"])
def test_a_request_in_flight_of_a_demoted_admin_changes_nothing(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person], ending: str,
    action: str, held_at: str,
) -> None:  # fmt: skip
    admin, person = make_person(role="admin"), make_person()
    make_person(role="admin")
    theirs = "SELECT users::text || sessions::text FROM users JOIN sessions ON user_id = users.id WHERE users.id = :id"
    before = connection.scalars(text(theirs), {"id": person.id}).all()
    end, status, code = ENDINGS[ending]
    method, change = ADMIN_ACTIONS[action]

    with database.connect() as holding:
        if held_at == "the target":
            holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": person.id})
        else:
            holding.execute(text(end), {"id": admin.id})
        answers = in_background(lambda: crowd.send([Call(method, f"/users/{person.id}", admin, change)]))
        wait_until_blocked(connection, by=holding)
        if held_at == "the target":
            connection.execute(text(end), {"id": admin.id})
        holding.commit()

    (answer,) = answers()
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert connection.scalars(text(theirs), {"id": person.id}).all() == before
    assert count(connection, "security_events") == count(connection, "outgoing_mails") == 0


@pytest.mark.parametrize("change", [{"role": "admin"}, {"is_active": True, "username": "renamed"}])
def test_an_admin_demoted_meanwhile_cannot_restore_their_role(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person],
    change: dict[str, object],
) -> None:  # fmt: skip
    admin = make_person(role="admin")
    make_person(role="admin")

    with database.connect() as demoting:
        demoting.execute(text("UPDATE users SET role = 'user' WHERE id = :id"), {"id": admin.id})
        answers = in_background(lambda: crowd.send([Call("PATCH", "/users/me", admin, change)]))
        wait_until_blocked(connection, by=demoting)
        demoting.commit()

    assert statuses(answers()) == {403: 1}
    assert count(connection, "users WHERE id = :id AND role = 'user' AND username <> 'renamed'", id=admin.id) == 1


@pytest.mark.parametrize("role", ["moderator", "admin"])
@pytest.mark.parametrize("ending", ["demoted", "disabled"])
def test_a_request_in_flight_of_a_demoted_moderator_deletes_no_post(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person],
    make_post: Callable[..., int], ending: str, role: str,
) -> None:  # fmt: skip
    """The other admin's request is answered, and holds from then on."""
    moderator, admin = make_person(role=role), make_person(role="admin")
    post_id = make_post(make_person())
    end = {"role": "user"} if ending == "demoted" else {"is_active": False}

    with database.connect() as holding:
        holding.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": post_id})
        answers = in_background(lambda: crowd.send([Call("DELETE", f"/posts/{post_id}", moderator)]))
        wait_until_blocked(connection, by=holding)
        assert statuses(crowd.send([Call("PATCH", f"/users/{moderator.id}", admin, end)])) == {200: 1}
        holding.rollback()

    (answer,) = answers()
    assert answer.status_code == ENDINGS[ending][1]
    assert count(connection, "posts WHERE id = :id", id=post_id) == 1
