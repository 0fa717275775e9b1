"""Moderators and those whom they moderate at the same time, on two server processes."""

import time
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from tests import pictures
from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses, wrong_counts
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


def test_upload_that_waits_for_the_ban_of_its_account_is_refused(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    """The session is valid when the upload has arrived, and ended when the lock of the account is free."""

    async def upload(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/media", files={"file": ("a.png", pictures.png())}, headers=person.headers)

    with database.connect() as ban:
        ban.execute(text("UPDATE users SET ban_reason = 'Spam' WHERE id = :id"), {"id": person.id})
        ban.execute(text("DELETE FROM sessions WHERE user_id = :id"), {"id": person.id})
        answers = in_background(lambda: crowd.run([upload]))
        wait_until_blocked(connection, by=ban)
        ban.commit()

    (answer,) = answers()
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert count(connection, "media") == 0
    assert count(connection, "media_removals WHERE due_at <= now()") == 1  # The files are deleted soon.


def removing(caller: Person, post_id: int, reason: str = "Spam") -> Call:
    return Call("POST", f"/posts/{post_id}/remove", caller, {"reason": reason})


def test_storm_of_removals_and_restores_of_one_post_keeps_its_state_and_counts(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    author, voter = make_person(), make_person()
    moderators = [make_person(role="moderator"), make_person(role="moderator")]
    post_id = make_post(author)
    dates = "SELECT created_at, coalesce(first_published_at, created_at) FROM posts"
    before, deadlocks_before = connection.execute(text(dates)).one(), deadlocks(connection)

    calls = [removing(each, post_id) for each in moderators * 4]
    calls += [Call("POST", f"/posts/{post_id}/restore", each) for each in moderators * 4]
    calls += [Call("PATCH", f"/posts/{post_id}", author, {"title": f"{n}", "published": True}) for n in range(8)]
    calls += [Call("PUT", f"/posts/{post_id}/vote", voter), Call("DELETE", f"/posts/{post_id}/vote", voter)] * 4
    answers = crowd.send(calls)

    assert statuses(answers[:16]) == {200: 16}
    assert statuses(answers[16:24]).keys() <= {200, 403}
    assert statuses(answers[24:]).keys() <= {200, 404}
    assert statuses(crowd.send([Call("POST", f"/posts/{post_id}/restore", moderators[0])])) == {200: 1}
    assert count(connection, "posts WHERE published AND removal_reason IS NULL") == 1
    assert connection.execute(text(dates)).one() == before
    assert count(connection, "user_stats WHERE user_id = :id AND posts = 1", id=author.id) == 1
    assert count(connection, "post_stats WHERE published") == 1
    assert wrong_counts(connection) == 0
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == deadlocks_before


def test_author_who_publishes_while_a_moderator_removes_is_refused(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person, published=False)

    with database.connect() as removal:
        removal.execute(text("UPDATE posts SET removal_reason = 'Spam', published_before_removal = false"))
        answers = in_background(lambda: crowd.send([Call("PATCH", f"/posts/{post_id}", person, {"published": True})]))
        wait_until_blocked(connection, by=removal)
        removal.commit()

    (answer,) = answers()
    assert (answer.status_code, answer.json()["code"]) == (403, "removed")
    assert count(connection, "posts WHERE published") == 0


@pytest.mark.parametrize("deletes", ["the comment", "the account"])
def test_removal_of_a_comment_that_is_being_deleted_changes_nothing(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person],
    make_post: Callable[..., int], make_comment: Callable[..., int], moderator: Person, deletes: str,
) -> None:  # fmt: skip
    author, post_id = make_person(), make_post(make_person())
    comment_id = make_comment(author, post_id)
    make_comment(moderator, post_id, parent_id=comment_id)

    with database.connect() as deleting:
        if deletes == "the comment":
            deleting.execute(text("UPDATE comments SET owner_id = NULL WHERE id = :id"), {"id": comment_id})
        else:
            deleting.execute(text("DELETE FROM users WHERE id = :id"), {"id": author.id})
        call = Call("POST", f"/comments/{comment_id}/remove", moderator, {"reason": "Spam"})
        answers = in_background(lambda: crowd.send([call]))
        wait_until_blocked(connection, by=deleting)
        deleting.commit()

    assert statuses(answers()) == {404: 1}
    assert count(connection, "comments WHERE removal_reason IS NOT NULL") == 0
    assert count(connection, "moderation_log") == 0
    assert count(connection, "post_stats WHERE comments = 1") == 1


@pytest.mark.parametrize("action", ["dismiss", "remove", "ban"])
def test_of_moderators_who_resolve_one_thing_at_once_one_succeeds(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int], action: str
) -> None:
    moderators = [make_person(role="moderator") for _ in range(4)]
    post_id = make_post(make_person())
    reporters = [make_person() for _ in range(4)]
    reports = crowd.send([Call("POST", "/reports", each, {"post_id": post_id, "reason": "Spam"}) for each in reporters])
    assert statuses(reports) == {201: 4}
    before = deadlocks(connection)

    body = {"action": action, "note": "Spam"}
    answers = crowd.send(
        [
            Call("POST", f"/reports/{each.json()['id']}/resolve", moderator, body)
            for each, moderator in zip(reports, moderators, strict=True)
        ]
    )

    assert statuses(answers) == {200: 1, 409: 3}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_resolved"}
    assert count(connection, "reports WHERE resolved_at IS NOT NULL") == 4
    assert count(connection, "moderation_log") == 1
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def test_of_twenty_reports_of_one_thing_by_one_reporter_at_once_one_is_written(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    answers = crowd.send([Call("POST", "/reports", person, {"post_id": post_id, "reason": "Spam"})] * 20)
    assert statuses(answers) == {201: 1, 409: 19}
    assert count(connection, "reports") == 1


def test_of_twenty_reports_at_once_for_the_last_place_one_is_written(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    connection.execute(
        text("INSERT INTO reports (reporter_id, post_id, reason) SELECT :id, n, 'x' FROM generate_series(1, 99) AS n"),
        {"id": person.id},
    )
    post_ids = [make_post(person, title=f"{10**6 + n}") for n in range(20)]
    connection.execute(text("UPDATE reports SET post_id = post_id + 1000000000"))
    answers = crowd.send([Call("POST", "/reports", person, {"post_id": each, "reason": "Spam"}) for each in post_ids])
    assert statuses(answers) == {201: 1, 409: 19}
    assert count(connection, "reports") == 100
