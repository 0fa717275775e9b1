"""Moderators and those whom they moderate at the same time, on two server processes."""

import time
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until_blocked


@pytest.fixture
def moderator(make_person: Callable[..., Person]) -> Person:
    return make_person(role="moderator")


def banning(caller: Person, user_id: int) -> Call:
    return Call("POST", f"/users/{user_id}/ban", caller, {"reason": "Spam"})


def test_ban_on_one_server_ends_every_credential_on_the_other_within_a_second(
    crowd: Crowd, connection: Connection, person: Person, moderator: Person
) -> None:
    here, there = (server.url for server in crowd.servers)
    signed_in = httpx2.post(f"{here}/login", data={"username": person.email, "password": PASSWORD}).json()
    body = {"name": "k", "scopes": ["read"]}
    key = httpx2.post(f"{here}/api-keys", json=body, headers=person.headers).json()["key"]
    credentials = [person.headers, {"Authorization": f"Bearer {signed_in['access_token']}"}, {"X-API-Key": key}]

    with httpx2.Client(base_url=there, timeout=60) as looking:

        def answers() -> list[int]:
            return [looking.get("/posts", headers=headers).status_code for headers in credentials]

        assert answers() == [200] * 3
        ban = httpx2.post(f"{here}/users/{person.id}/ban", json={"reason": "Spam"}, headers=moderator.headers)
        banned_at = time.monotonic()
        assert ban.status_code == 200
        assert answers() == [401] * 3
        refresh = looking.post("/token/refresh", json={"refresh_token": signed_in["refresh_token"]})
        assert refresh.status_code == 401
        assert time.monotonic() - banned_at < 1
    assert count(connection, "sessions WHERE user_id = :id", id=person.id) == 0


def test_storm_of_bans_and_of_what_the_banned_do_leaves_no_session_and_no_deadlock(
    crowd: Crowd, connection: Connection, person: Person, moderator: Person, make_post: Callable[..., int]
) -> None:
    tokens = []
    for _ in range(5):
        response = httpx2.post(
            f"{crowd.servers[0].url}/login", data={"username": person.email, "password": PASSWORD}, timeout=60
        )
        tokens.append(response.json()["refresh_token"])
    post_id = make_post(person)
    before = deadlocks(connection)

    async def sign_in(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/login", data={"username": person.email, "password": PASSWORD})

    calls = [Call("POST", "/token/refresh", json={"refresh_token": token}) for token in tokens]
    calls += [Call("POST", f"/posts/{post_id}/comments", person, {"content": "hello"}) for _ in range(10)]
    calls += [Call("PATCH", f"/posts/{post_id}", person, {"title": f"{n}"}) for n in range(5)]
    calls += [Call("POST", "/api-keys", person, {"name": "k", "scopes": ["read"]}) for _ in range(5)]
    calls += [Call("DELETE", "/sessions", person), *[banning(moderator, person.id) for _ in range(4)]]
    answers = crowd.run([member for call in calls for member in (call.send, sign_in)])

    assert statuses(answers).keys() <= {200, 201, 204, 401, 403}
    bans = [answer for answer in answers if answer.url.path.endswith("/ban")]
    assert statuses(bans) == {200: 4}
    assert count(connection, "sessions WHERE user_id = :id", id=person.id) == 0
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


ENDINGS = {
    "demoted": ("UPDATE users SET role = 'user' WHERE id = :id", 403),
    "disabled": ("UPDATE users SET is_active = false WHERE id = :id", 401),
    "banned": ("UPDATE users SET ban_reason = 'Spam' WHERE id = :id", 401),
    "deleted": ("DELETE FROM users WHERE id = :id", 401),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_request_in_flight_of_a_demoted_moderator_bans_no_account(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, moderator: Person, ending: str
) -> None:
    end, status = ENDINGS[ending]

    with database.connect() as holding:
        holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": person.id})
        answers = in_background(lambda: crowd.send([banning(moderator, person.id)]))
        wait_until_blocked(connection, by=holding)
        connection.execute(text(end), {"id": moderator.id})
        holding.rollback()

    assert statuses(answers()) == {status: 1}
    assert count(connection, "users WHERE ban_reason IS NOT NULL AND id = :id", id=person.id) == 0
    assert count(connection, "moderation_log") == 0
    assert count(connection, "sessions WHERE user_id = :id", id=person.id) == 1
