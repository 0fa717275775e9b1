"""Concurrent writes of tags: each exists once, and every count equals its rows."""

import random
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app.services import cleanup, recount
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until_blocked
from tests.services.test_tag_counts import wrong_tags
from tests.services.walking import rows

MakePost = Callable[..., int]
MakePerson = Callable[..., Person]


def new(*tags: str, title: str = "title") -> dict[str, object]:
    return {"title": title, "content": "content", "tags": tags}


def test_posts_that_create_the_same_tags_at_once_share_them(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    people = [make_person() for _ in range(10)]
    names = ["a", "b", "c", "d", "e"]
    draw = random.Random(1)
    before = deadlocks(connection)

    answers = crowd.send(
        [Call("POST", "/posts", person, new(*draw.sample(names, 5))) for person in people for _ in range(6)]
    )

    assert statuses(answers) == {201: 60}
    assert rows(connection, "SELECT name FROM tags ORDER BY name") == names
    assert rows(connection, "SELECT posts FROM tag_stats") == [60] * 5
    assert wrong_tags(connection) == []
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def test_posts_create_their_tags_in_one_order_and_so_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, database: Engine, make_person: MakePerson
) -> None:
    """Each post needs a tag that another transaction creates, and tags before and after it."""
    draw = random.Random(3)
    before = deadlocks(connection)
    calls = [Call("POST", "/posts", make_person(), new(*draw.sample("abmyz", 5))) for _ in range(8)]
    with database.begin() as other:
        other.execute(text("SELECT create_tags('{m}')"))
        answers = in_background(lambda: crowd.send(calls))
        wait_until_blocked(connection, by=other)
        time.sleep(0.5)  # The others wait for the first, or create what comes first for them.

    assert statuses(answers()) == {201: 8}
    assert wrong_tags(connection) == []
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def test_post_waits_for_another_that_creates_its_tag_and_uses_the_same(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    with database.begin() as other:
        other.execute(
            text("INSERT INTO posts (owner_id, title, content, tags) VALUES (:id, 't', 'c', '{b,c}')"),
            {"id": person.id},
        )
        answers = in_background(lambda: crowd.send([Call("POST", "/posts", person, new("c", "a"))]))
        wait_until_blocked(connection, by=other)

    assert statuses(answers()) == {201: 1}
    assert count(connection, "tags") == 3
    assert wrong_tags(connection) == []


def test_tag_that_another_post_creates_in_vain_is_created(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    with database.connect() as other:
        other.execute(text("SELECT create_tags('{a}')"))
        answers = in_background(lambda: crowd.send([Call("POST", "/posts", person, new("a"))]))
        wait_until_blocked(connection, by=other)
        other.rollback()

    assert statuses(answers()) == {201: 1}
    assert wrong_tags(connection) == []


def test_changes_of_one_posts_tags_leave_those_of_the_last(
    crowd: Crowd, connection: Connection, person: Person, make_post: MakePost
) -> None:
    post_id = make_post(person, tags=["first"])
    draw = random.Random(2)
    bodies = [{"tags": draw.sample("abcdefgh", draw.randrange(6)), "published": draw.random() < 0.7} for _ in range(60)]

    answers = crowd.send([Call("PATCH", f"/posts/{post_id}", person, body) for body in bodies])

    assert statuses(answers) == {200: 60}
    (tags,) = rows(connection, "SELECT tags FROM posts")
    assert tags in [body["tags"] for body in bodies]
    assert wrong_tags(connection) == []


def test_tag_followed_twice_at_once_counts_its_follower_once(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    people = [make_person() for _ in range(5)]

    answers = crowd.send([Call("PUT", "/tags/a/follow", person) for person in people for _ in range(6)])

    assert statuses(answers) == {200: 30}
    assert all(answer.json()["followed"] for answer in answers)
    assert rows(connection, "SELECT followers FROM tag_stats") == [5]
    assert wrong_tags(connection) == []


def test_account_that_follows_many_tags_at_once_stays_within_the_maximum(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    connection.execute(text("SELECT create_tags(ARRAY(SELECT 't' || n FROM generate_series(1, 995) AS n))"))
    connection.execute(text("INSERT INTO tag_follows (user_id, tag_id) SELECT :id, id FROM tags"), {"id": person.id})

    answers = crowd.send([Call("PUT", f"/tags/new{n}/follow", person) for n in range(20)])

    assert statuses(answers) == {200: 5, 409: 15}
    assert count(connection, "tag_follows") == 1_000
    assert wrong_tags(connection) == []


def test_cleanup_keeps_a_tag_that_a_post_uses_meanwhile(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    connection.execute(text("SELECT create_tags('{a,b}')"))
    with database.begin() as writing:
        writing.execute(
            text("INSERT INTO posts (owner_id, title, content, tags) VALUES (:id, 't', 'c', '{a}')"), {"id": person.id}
        )
        assert dict(cleanup.run())["tags"] == 1

    assert rows(connection, "SELECT name FROM tags") == ["a"]
    assert statuses(crowd.send([Call("POST", "/posts", person, new("a", "b"))])) == {201: 1}
    assert wrong_tags(connection) == []


def test_post_whose_tag_is_being_removed_creates_it_again(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    connection.execute(text("SELECT create_tags('{a}')"))
    with database.begin() as cleaning:
        cleaning.execute(text("DELETE FROM tags"))
        answers = in_background(lambda: crowd.send([Call("POST", "/posts", person, new("a"))]))
        wait_until_blocked(connection, by=cleaning)

    assert statuses(answers()) == {201: 1}
    assert rows(connection, "SELECT posts FROM tag_stats") == [1]
    assert wrong_tags(connection) == []


def test_tag_used_between_the_look_and_the_lock_of_cleanup_stays(
    connection: Connection, database: Engine, person: Person, make_post: MakePost
) -> None:
    """Cleanup chooses by a snapshot. A post that commits after it and before the lock is seen by the second look."""
    connection.execute(text("SELECT create_tags('{a}')"))
    with database.begin() as cleaning:
        ids = cleaning.scalars(cleanup._LOCK_UNUSED, {"last": 0, "rows": 10}).all()
        cleaning.rollback()
    make_post(person, tags=["a"])
    with database.begin() as cleaning:
        assert cleaning.execute(cleanup._DELETE_UNUSED, {"ids": ids}).rowcount == 0
    assert len(ids) == 1
    assert wrong_tags(connection) == []


@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_writers_of_shared_tags_meet_without_a_deadlock_or_a_wrong_count(
    crowd: Crowd, connection: Connection, make_person: MakePerson, rounds: int
) -> None:
    """Posts, changes, deletions, follows, deleted accounts, cleanup and recount at once, on few tags."""
    people = [make_person() for _ in range(12)]
    leave = [make_person() for _ in range(6)]
    names = [f"tag{n}" for n in range(8)]
    before = deadlocks(connection)
    seen: list[int] = []

    def writer(person: Person, seed: int) -> Callable[[httpx2.AsyncClient], Awaitable[None]]:
        draw = random.Random(seed)

        async def act(client: httpx2.AsyncClient) -> None:
            post_ids: list[int] = []
            for _ in range(rounds):
                post = Call("POST", "/posts", person, new(*draw.sample(names, draw.randrange(6))))
                answer = await post.send(client)
                seen.append(answer.status_code)
                if answer.status_code == 201:
                    post_ids.append(answer.json()["id"])
                method = draw.choice(("PUT", "DELETE"))
                calls = [Call(method, f"/tags/{draw.choice(names)}/follow", person)]
                for post_id in post_ids[-2:]:
                    body = {"tags": draw.sample(names, draw.randrange(6)), "published": draw.random() < 0.8}
                    calls.append(Call("PATCH", f"/posts/{post_id}", person, body))
                    calls.append(Call("PUT", f"/posts/{post_id}/vote", person))
                if draw.random() < 0.5 and post_ids:
                    calls.append(Call("DELETE", f"/posts/{post_ids.pop(0)}", person))
                draw.shuffle(calls)
                seen.extend([(await call.send(client)).status_code for call in calls])

        return act

    async def delete_users(client: httpx2.AsyncClient) -> None:
        seen.extend([(await Call("DELETE", "/users/me", person).send(client)).status_code for person in leave])

    def maintain() -> None:
        for _ in range(rounds):
            list(cleanup.run())
            list(recount.recount(is_repairing=True, batch_rows=3))

    maintaining = in_background(maintain)
    crowd.run([delete_users, *(writer(person, n) for n, person in enumerate([*people, *leave]))])
    maintaining()

    assert {status: seen.count(status) for status in set(seen)}.keys() <= {200, 201, 204, 401, 404}
    assert seen.count(201) >= rounds * len(people)
    assert wrong_tags(connection) == []
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before
