"""Follows, blocks and bookmarks at once on two servers: no deadlock, no lost rule, and counts that equal the rows."""

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app.config import get_settings
from app.services import deletion, recount
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses, wrong_counts
from tests.races.test_deletions import MANY
from tests.races.waiting import in_background, wait_until_blocked
from tests.services.test_recount import break_counts
from tests.services.test_user_counts import WRONG

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]


def follow(caller: Person, user: Person, method: str = "PUT") -> Call:
    return Call(method, f"/users/{user.id}/follow", caller)


def block(caller: Person, user: Person, method: str = "PUT") -> Call:
    return Call(method, f"/users/{user.id}/block", caller)


def delete(person: Person) -> Call:
    return Call("DELETE", "/users/me", person)


def assert_counts_are_right(connection: Connection, deadlocks_before: int) -> None:
    assert connection.scalars(WRONG).all() == []
    assert wrong_counts(connection) == 0
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == deadlocks_before


def test_twenty_follows_of_one_pair_at_once_are_one_follow(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    caller, user = make_person(), make_person()
    answers = crowd.send([follow(caller, user)] * 20)

    assert {answer.text for answer in answers} == {f'{{"user_id":{user.id},"followers":1,"followed":true}}'}
    assert count(connection, "follows") == 1


def test_users_who_follow_each_other_at_once_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    before = deadlocks(connection)
    people = [make_person() for _ in range(8)]
    calls = [follow(a, b) for a in people for b in people if a is not b]
    random.Random(3).shuffle(calls)

    for method in ("PUT", "DELETE", "PUT"):
        answers = crowd.send([follow(call.caller, by_id(people, call), method) for call in calls if call.caller])
        assert statuses(answers) == {200: len(calls)}

    assert count(connection, "follows") == len(calls)
    assert_counts_are_right(connection, before)


def by_id(people: list[Person], call: Call) -> Person:
    return next(person for person in people if f"/{person.id}/" in call.path)


def test_of_twenty_follows_at_once_as_many_succeed_as_the_quota_allows(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    caller, *users = [make_person() for _ in range(21)]
    maximum = get_settings().follows_max
    connection.execute(
        text("INSERT INTO user_stats (user_id, following) VALUES (:id, :n)"), {"id": caller.id, "n": maximum - 3}
    )

    answers = crowd.send([follow(caller, user) for user in users])

    assert statuses(answers) == {200: 3, 409: 17}
    assert count(connection, "follows") == 3


@pytest.mark.parametrize("is_blocker_first", [True, False])
def test_follow_and_block_at_once_leave_no_follow(
    crowd: Crowd, connection: Connection, database: Engine, make_person: MakePerson, *, is_blocker_first: bool
) -> None:
    """Both wait for one account. Whichever is first, the follow is refused or ended."""
    fan, user = make_person(), make_person()
    calls = [block(user, fan), follow(fan, user)]
    with database.begin() as holder:
        holder.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": fan.id})
        first = in_background(lambda: crowd.send([calls[0 if is_blocker_first else 1]]))
        wait_until_blocked(connection, by=holder)
        second = in_background(lambda: crowd.send([calls[1 if is_blocker_first else 0]]))
        wait_until_blocked(connection, by=holder, waiting_count=1)
        time.sleep(0.3)

    assert statuses([*first(), *second()]) in ({200: 1, 403: 1}, {200: 2})
    assert count(connection, "follows") == 0
    assert count(connection, "blocks") == 1
    assert connection.scalars(WRONG).all() == []


@pytest.mark.parametrize("has_many_rows", [False, True])
@pytest.mark.parametrize("leaver_follows", [False, True])
def test_account_deleted_while_it_is_followed_leaves_nothing(
    crowd: Crowd, connection: Connection, database: Engine, make_person: MakePerson, *, has_many_rows: bool,
    leaver_follows: bool,
) -> None:  # fmt: skip
    """The deletion is held at a lock, so that the follow comes right before it or waits for it."""
    leaver, other = make_person(), make_person()
    if has_many_rows:
        connection.execute(
            text("INSERT INTO security_events (user_id, event) SELECT :id, 'signed_in' FROM generate_series(1, :n)"),
            {"id": leaver.id, "n": MANY},
        )
    call = follow(leaver, other) if leaver_follows else follow(other, leaver)
    with database.begin() as holder:
        holder.execute(text("SELECT FROM users WHERE id = :id FOR KEY SHARE"), {"id": leaver.id})
        leaving = in_background(lambda: crowd.send([delete(leaver)]))
        wait_until_blocked(connection, by=holder)
        following = in_background(lambda: crowd.send([call]))
        time.sleep(0.3)

    assert statuses(leaving()) == {204: 1}
    assert statuses(following()) in ({200: 1}, {401: 1} if leaver_follows else {404: 1})
    assert deletion.work() == int(has_many_rows)
    assert count(connection, "follows") == count(connection, "users WHERE id = :id", id=leaver.id) == 0
    assert connection.scalars(WRONG).all() == []


def test_counts_equal_rows_after_a_storm_of_follows_blocks_bookmarks_posts_and_deletions(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    before = deadlocks(connection)
    draw = random.Random(11)
    people = [make_person() for _ in range(16)]
    posts = [make_post(draw.choice(people)) for _ in range(24)]
    calls: list[Call] = []
    for _ in range(400):
        caller, user = draw.sample(people, 2)
        post_id = draw.choice(posts)
        kind = draw.choice(["follow", "follow", "follow", "block", "bookmark", "vote", "post", "draft"])
        method = draw.choice(["PUT", "PUT", "DELETE"])
        if kind in {"follow", "block"}:
            calls.append(Call(method, f"/users/{user.id}/{kind}", caller))
        elif kind in {"bookmark", "vote"}:
            calls.append(Call(method, f"/posts/{post_id}/{kind}", caller))
        elif kind == "post":
            calls.append(Call("POST", "/posts", caller, {"title": "t", "content": "c"}))
        else:
            body = {"published": draw.choice([True, False])}
            calls += [Call("PATCH", f"/posts/{post_id}", person, body) for person in people[:4]]
    calls += [Call("DELETE", f"/posts/{post_id}", person) for post_id in posts[:6] for person in people]
    calls += [delete(person) for person in people[10:]]
    draw.shuffle(calls)

    # In waves, because requests that wait for a connection for as long as a statement may take are 503.
    for first in range(0, len(calls), 80):
        assert set(statuses(crowd.send(calls[first : first + 80]))) <= {200, 201, 204, 401, 403, 404}
    assert count(connection, "users") == 10
    pairs = "((blocker_id, blocked_id), (blocked_id, blocker_id))"
    assert count(connection, f"follows JOIN blocks ON (follower_id, followee_id) IN {pairs}") == 0
    assert_counts_are_right(connection, before)


def test_two_accounts_that_follow_block_and_bookmark_each_other_are_deleted_at_once(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    before = deadlocks(connection)
    for _ in range(5):
        people = [make_person() for _ in range(6)]
        posts = [make_post(person) for person in people for _ in range(3)]
        pairs = {"a": [a.id for a in people for b in people if a is not b],
                 "b": [b.id for a in people for b in people if a is not b]}  # fmt: skip
        for table, columns in (("follows", "follower_id, followee_id"), ("blocks", "blocker_id, blocked_id")):
            connection.execute(text(f"INSERT INTO {table} ({columns}) SELECT * FROM unnest(:a, :b)"), pairs)
        connection.execute(
            text("""
                INSERT INTO bookmarks (user_id, post_id)
                SELECT u, p FROM unnest(CAST(:users AS bigint[])) AS u, unnest(CAST(:posts AS bigint[])) AS p
            """),
            {"users": pairs["a"][::5], "posts": posts},
        )

        assert statuses(crowd.send([delete(person) for person in people])) == {204: 6}

    for table in ("users", "posts", "follows", "blocks", "bookmarks", "user_stats"):
        assert count(connection, table) == 0
    assert_counts_are_right(connection, before)


def test_post_deleted_while_it_is_bookmarked_leaves_nothing(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    before = deadlocks(connection)
    owner, *readers = [make_person() for _ in range(9)]
    for _ in range(5):
        post_id = make_post(owner)
        path = f"/posts/{post_id}/bookmark"
        calls = [Call(method, path, reader) for reader in readers for method in ("PUT", "DELETE")]
        answers = crowd.send([*calls, Call("DELETE", f"/posts/{post_id}", owner)])
        assert set(statuses(answers)) <= {200, 204, 404}

    assert count(connection, "bookmarks") == 0
    assert_counts_are_right(connection, before)


def test_of_twenty_blocks_at_once_one_takes_the_last_place(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    caller, *users = [make_person() for _ in range(21)]
    others = """
        WITH made AS (
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT 'x' || n, 'x' || n, '' FROM generate_series(1, :n) AS n RETURNING id
        ) INSERT INTO blocks (blocker_id, blocked_id) SELECT :id, id FROM made
    """
    connection.execute(text(others), {"id": caller.id, "n": get_settings().blocks_max - 1})

    assert statuses(crowd.send([block(caller, user) for user in users])) == {200: 1, 409: 19}
    assert count(connection, "blocks") == get_settings().blocks_max


def test_of_twenty_bookmarks_at_once_one_takes_the_last_place(
    crowd: Crowd, connection: Connection, database: Engine, make_person: MakePerson, make_post: MakePost
) -> None:
    caller = make_person()
    posts = [make_post(caller) for _ in range(20)]
    maximum = get_settings().bookmarks_max
    # Of posts that do not exist, because so many would take long to write.
    bookmarks = f"SELECT -n, {caller.id} FROM generate_series(1, {maximum - 1}) AS n"
    break_counts(database, f"INSERT INTO bookmarks (post_id, user_id) {bookmarks}")

    answers = crowd.send([Call("PUT", f"/posts/{post_id}/bookmark", caller) for post_id in posts])

    assert statuses(answers) == {200: 1, 409: 19}
    assert count(connection, "bookmarks") == maximum


def test_counts_of_accounts_are_repaired_during_follows_and_posts(
    crowd: Crowd, connection: Connection, database: Engine, make_person: MakePerson
) -> None:
    before = deadlocks(connection)
    people = [make_person() for _ in range(8)]
    crowd.send([follow(a, b) for a in people for b in people if a is not b])
    break_counts(database, "UPDATE user_stats SET posts = 1000, followers = 1000, following = 1000")
    draw = random.Random(5)
    pairs = [draw.sample(people, 2) for _ in range(150)]
    calls = [follow(caller, user, draw.choice(["PUT", "DELETE"])) for caller, user in pairs]
    calls += [Call("POST", "/posts", draw.choice(people), {"title": "t", "content": "c"}) for _ in range(50)]
    draw.shuffle(calls)

    def mend() -> int:
        batches = [batch for _ in range(20) for batch in recount.recount(is_repairing=True, batch_rows=3)]
        return sum(len(batch.wrong) for batch in batches)

    mending = in_background(mend)
    for first in range(0, len(calls), 80):
        assert set(statuses(crowd.send(calls[first : first + 80]))) <= {200, 201}

    assert mending() > 0
    assert_counts_are_right(connection, before)


def test_posts_of_an_unfollowed_user_are_in_no_home_requested_afterwards(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    """Readings share statements. None begins before its request arrived."""
    caller, user = make_person(), make_person()
    others = [make_person() for _ in range(6)]
    post_id = make_post(user)
    for reader in (caller, *others):
        connection.execute(text("INSERT INTO follows VALUES (:a, :b)"), {"a": reader.id, "b": user.id})
    ended_at: list[float] = []
    homes: list[tuple[float, list[int]]] = []

    async def unfollow(client: httpx2.AsyncClient) -> None:
        for _ in range(10):
            await Call("GET", "/home", caller).send(client)
        answer = await follow(caller, user, "DELETE").send(client)
        assert answer.status_code == 200
        ended_at.append(time.monotonic())

    async def read_on(client: httpx2.AsyncClient) -> None:
        left = 5
        while left:
            left -= bool(ended_at)
            began_at = time.monotonic()
            answer = await Call("GET", "/home", caller).send(client)
            homes.append((began_at, [item["Post"]["id"] for item in answer.json()]))

    async def read_beside(client: httpx2.AsyncClient, reader: Person) -> None:
        while not ended_at:
            answer = await Call("GET", "/home", reader).send(client)
            assert [item["Post"]["id"] for item in answer.json()] == [post_id]

    beside = [partial(read_beside, reader=reader) for reader in others]
    members: list[Callable[[httpx2.AsyncClient], Awaitable[None]]] = [unfollow, *[read_on] * 6, *beside]
    crowd.run(members)

    assert {tuple(ids) for began_at, ids in homes if began_at > ended_at[0]} == {()}
    assert (post_id,) in {tuple(ids) for _, ids in homes}
