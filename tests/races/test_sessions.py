"""Sessions on two server processes: both reject an ended one, and concurrent refreshes are safe."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app.errors import Banned, InvalidCredentials
from app.security import passwords
from app.services import auth, totp
from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked

Credentials = dict[str, Any]
WAITING = "SELECT count(*) >= :n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
LATER = "UPDATE sessions SET refreshed_at = refreshed_at - interval '11 seconds'"


@pytest.fixture
def person(make_person: Callable[..., Person], connection: Connection) -> Person:
    """A user with a password and without a session."""
    person = make_person()
    connection.execute(text("DELETE FROM sessions"))
    return person


@pytest.fixture
def sign_in(crowd: Crowd, person: Person) -> Callable[..., httpx2.Response]:
    """Sign the person in on one of the servers: `sign_in(0, cookie=True)`."""

    def sign_in(server: int, *, cookie: bool = False) -> httpx2.Response:
        form = {"username": person.email, "password": PASSWORD}
        path = f"{crowd.servers[server].url}/login?cookie={cookie}"
        response = httpx2.post(path, data=form, timeout=60)
        assert response.status_code == 200, response.text
        return response

    return sign_in


def refreshing(token: str) -> Call:
    return Call("POST", "/token/refresh", json={"refresh_token": token})


def test_twenty_concurrent_refreshes_with_one_token_leave_one_valid_token_and_no_lockout(
    crowd: Crowd, connection: Connection, sign_in: Callable[..., httpx2.Response]
) -> None:
    first = sign_in(0).json()["refresh_token"]

    answers = crowd.send([refreshing(first)] * 20)

    assert statuses(answers) == {200: 20}
    (second,) = {answer.json()["refresh_token"] for answer in answers}
    assert second != first
    assert count(connection, "sessions") == 1
    for answer in answers:
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert httpx2.get(f"{crowd.servers[0].url}/posts", headers=headers).status_code == 200
    # It still works after several such rounds.
    for _ in range(5):
        (second,) = {answer.json()["refresh_token"] for answer in crowd.send([refreshing(second)] * 10)}
    assert count(connection, "sessions") == 1


def test_twenty_concurrent_replays_are_refused_and_the_session_ends(
    crowd: Crowd, connection: Connection, sign_in: Callable[..., httpx2.Response]
) -> None:
    first = sign_in(0).json()["refresh_token"]
    (answer,) = crowd.send([refreshing(first)])
    connection.execute(text(LATER))

    answers = crowd.send([refreshing(first), refreshing(answer.json()["refresh_token"])] * 10)

    assert statuses(answers).keys() <= {200, 401}
    assert {a.status_code for a in answers[::2]} == {401}
    assert count(connection, "sessions") == 0
    assert statuses(crowd.send([refreshing(answer.json()["refresh_token"])])) == {401: 1}


def test_a_sign_out_during_a_refresh_ends_the_session(
    crowd: Crowd, connection: Connection, database: Engine, sign_in: Callable[..., httpx2.Response]
) -> None:
    pair = sign_in(0).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}

    with database.connect() as holding:
        holding.execute(text("SELECT FROM sessions FOR UPDATE"))
        out = in_background(lambda: crowd.send([Call("POST", "/logout", headers=headers)]))
        wait_until_blocked(connection, by=holding)
        again = in_background(lambda: crowd.send([refreshing(pair["refresh_token"])] * 4))
        # They queue behind the first, which alone is blocked by the holder, as PostgreSQL reports it.
        wait_until(connection, WAITING, n=5)
        holding.rollback()

    assert statuses(out()) == {204: 1}
    assert statuses(again()).keys() <= {200, 401}
    assert count(connection, "sessions") == 0
    for answer in again():
        if answer.status_code == 200:  # It was refreshed before it ended.
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            assert httpx2.get(f"{crowd.servers[1].url}/posts", headers=headers).status_code == 401


@pytest.mark.parametrize("what", ["this session", "one session", "other sessions", "an API key"])
def test_ending_sessions_and_deleting_their_account_at_once_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person], what: str
) -> None:
    person, admin = make_person(), make_person(role="admin")
    (made,) = crowd.send([Call("POST", "/api-keys", person, {"name": "a program", "scopes": ["read"]})])
    other = connection.scalar(
        text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"),
        {"id": person.id},
    )
    ending = {
        "this session": Call("POST", "/logout", person),
        "one session": Call("DELETE", f"/sessions/{other}", person),
        "other sessions": Call("DELETE", "/sessions", person),
        "an API key": Call("DELETE", f"/api-keys/{made.json()['id']}", person),
    }[what]
    before = deadlocks(connection)
    with database.begin() as third:
        third.execute(text("SELECT FROM sessions WHERE user_id = :id FOR UPDATE"), {"id": person.id})
        ended = in_background(lambda: crowd.send([ending]))
        wait_until_blocked(connection, by=third)
        deleted = in_background(lambda: crowd.send([Call("DELETE", f"/users/{person.id}", admin)]))
        time.sleep(0.3)  # The second waits behind the first, or for the third.

    assert statuses([*ended(), *deleted()]) == {204: 2}
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"password_hash": "another"}, InvalidCredentials),
        ({"is_active": False}, InvalidCredentials),
        ({"ban_reason": "Spam"}, Banned),
    ],
    ids=["the password is changed", "the account is disabled", "the account is banned"],
)
@pytest.mark.parametrize("is_outdated", [False, True], ids=["hash kept", "hash replaced"])
def test_credentials_revoked_during_a_sign_in_are_rejected(
    database: Engine, connection: Connection, person: Person, change: dict[str, Any], error: type[Exception], *,
    is_outdated: bool,
) -> None:  # fmt: skip
    """A session that is opened during a password change must not survive it.

    Existing sessions end with the password.
    """
    if is_outdated:
        kept = passwords._context().handler("bcrypt").using(rounds=4).hash(PASSWORD)
        connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": kept})

    with database.connect() as changing:
        assignment = ", ".join(f"{column} = :{column}" for column in change)
        changing.execute(text(f"UPDATE users SET {assignment} WHERE id = :id"), {**change, "id": person.id})
        changing.execute(text("DELETE FROM sessions WHERE user_id = :id"), {"id": person.id})
        device = auth.Device("test", None)
        second_factor = partial(totp.demand, otp=None)
        outcome = in_background(lambda: auth.sign_in(person.email, PASSWORD, device, second_factor, refreshes=True))
        wait_until_blocked(connection, by=changing)
        changing.commit()

        with pytest.raises(error):
            outcome()
    assert count(connection, "sessions") == 0


def test_twenty_concurrent_sign_ins_with_an_outdated_hash_all_succeed(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    kept = passwords._context().handler("bcrypt").using(rounds=4).hash(PASSWORD)
    connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": kept})

    async def sign_in(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/login", data={"username": person.email, "password": PASSWORD})

    assert statuses(crowd.run([sign_in] * 20)) == {200: 20}
    assert count(connection, "sessions") == 20
    assert connection.scalar(text("SELECT password_hash FROM users")).startswith("$bcrypt-sha256$")


def sign_out(client: httpx2.Client, _: Person) -> httpx2.Response:
    return client.post("/logout")


def end_this_one(client: httpx2.Client, _: Person) -> httpx2.Response:
    (mine,) = (session["id"] for session in client.get("/sessions").json() if session["current"])
    return client.delete(f"/sessions/{mine}")


def disable(client: httpx2.Client, _: Person) -> httpx2.Response:
    return client.patch("/users/me", json={"is_active": False})


def delete(client: httpx2.Client, _: Person) -> httpx2.Response:
    return client.delete("/users/me")


def change_password(client: httpx2.Client, _: Person) -> httpx2.Response:
    return client.patch("/users/me", json={"password": "another password", "current_password": PASSWORD})


def end_the_others(client: httpx2.Client, _: Person) -> httpx2.Response:
    return client.delete("/sessions")


DEAD_WITHIN_SECONDS = 1


@pytest.mark.parametrize("end", [sign_out, end_this_one, disable, delete, change_password, end_the_others])
def test_every_credential_revoked_on_one_server_is_rejected_on_the_other_within_a_second(
    crowd: Crowd,
    connection: Connection,
    person: Person,
    make_person: Callable[..., Person],
    sign_in: Callable[..., httpx2.Response],
    end: Callable[[httpx2.Client, Person], httpx2.Response],
) -> None:
    connection.execute(text("UPDATE users SET role = 'admin'"))  # Each may disable itself, except the last.
    make_person(role="admin")
    here, there = (server.url for server in crowd.servers)
    mine, other = sign_in(0).json(), sign_in(0).json()
    cookie = sign_in(0, cookie=True).headers["set-cookie"].partition(";")[0]
    ends_only_this = end in {sign_out, end_this_one}
    spares_this = end in {change_password, end_the_others}

    with httpx2.Client(base_url=there, timeout=60) as looking:

        def answers(credentials: Credentials) -> list[int]:
            bearer = {"Authorization": f"Bearer {credentials['access_token']}"}
            return [
                looking.get("/posts", headers=bearer).status_code,
                looking.get("/users/me", headers=bearer).status_code,
                looking.post("/vote", json={"post_id": 1, "vote_dir": 1}, headers=bearer).status_code,
            ]

        def answer_to_cookie() -> int:
            return looking.get("/posts", headers={"Cookie": cookie}).status_code

        # The other server has met, verified and remembered them all.
        assert answers(mine) == answers(other) == [200, 200, 404]
        assert answer_to_cookie() == 200

        bearer = {"Authorization": f"Bearer {mine['access_token']}"}
        with httpx2.Client(base_url=here, timeout=60, headers=bearer) as ending:
            assert end(ending, person).status_code in {200, 204}
        ended_at = time.monotonic()
        of_mine, of_other, of_cookie = answers(mine), answers(other), answer_to_cookie()
        refreshed = [looking.post("/token/refresh", json={"refresh_token": pair["refresh_token"]}).status_code
                     for pair in (mine, other)]  # fmt: skip
        seconds = time.monotonic() - ended_at

    alive, dead = ([200, 200, 404], 200, 200), ([401, 401, 401], 401, 401)
    assert (of_mine, refreshed[0]) == ((alive if spares_this else dead)[0], 200 if spares_this else 401)
    assert (of_other, refreshed[1]) == ((alive if ends_only_this else dead)[0], 200 if ends_only_this else 401)
    assert of_cookie == (200 if ends_only_this else 401)
    assert seconds < DEAD_WITHIN_SECONDS
