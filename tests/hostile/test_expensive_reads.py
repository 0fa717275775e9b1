"""One hostile account that requests the most expensive pages: effect on others, at the default limits."""

import asyncio
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
from sqlalchemy import Connection, text

from tests.chaos.load import Answers, Client, press
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.hostile.test_one_caller import pages_of

SECONDS = 10.0
CONNECTIONS = 24
OTHERS = 20
TRIES = 2
MAX_RATIO = 5
POSTS = 100_000
STATEMENT_TIMEOUT_SECONDS = 10
TOLERANCE_SECONDS = 1
# Only the newer half has the word, so no post before MIDDLE is found, although many posts match.
MIDDLE = "2024-06-01T00:00:00Z"
POPULATE = """
    INSERT INTO posts (owner_id, title, content, created_at, published)
    SELECT :owner, 'post ' || n, CASE WHEN n > :posts / 2 THEN 'common words of post ' ELSE 'words of ' END || n,
        timestamptz '2024-06-01' + (n - :posts / 2) * interval '1 minute', true
    FROM generate_series(:first, :last) AS n
"""
POSTS_PER_STATEMENT = 5_000
# Each with another number, so that no two requests are equal.
ATTACKS = {
    "searches that find nothing in a part with many posts": f"/posts?search=common&created_before={MIDDLE}&limit={{}}",
    "searches with a large skip": "/posts?search=common&skip=10000&limit={}",
    "searches of words that all posts have": "/posts?search=post+words&sort=top&limit={}",
    "top posts of the last hours": "/posts?sort=top&created_after=2024-07-05T00:00:00Z&limit={}",
    "hot posts of an owner without posts": "/posts?sort=hot&owner_id={}",
    "large skips": "/posts?skip=10000&sort=old&limit={}",
    "large skips of top": "/posts?skip=10000&sort=top&limit={}",
    "home pages of users and tags that are found last": "/home?limit={}",
    "all kinds of pages": "/posts?{}",
}
# The hostile account follows as much as it may. All of it was written long ago.
FOLLOWED_USERS = 5_000
FOLLOWED_TAGS = 1_000
FOLLOW = (
    """
    WITH author AS (
        INSERT INTO users (email, email_canonical, password_hash)
        SELECT n || '@followed.example', n || '@followed.example', 'x' FROM generate_series(1, :users) AS n RETURNING id
    )
    INSERT INTO posts (owner_id, title, content, created_at, tags)
    SELECT id, 'old', 'old', timestamptz '2020-01-01' + id * interval '1 minute', ARRAY['t' || id % :tags] FROM author
    """,
    "INSERT INTO follows (follower_id, followee_id) SELECT :hostile, owner_id FROM posts WHERE title = 'old'",
    "INSERT INTO tag_follows (user_id, tag_id) SELECT :hostile, id FROM tags",
)
KINDS = [
    "&".join(part for part in parts if part)
    for parts in itertools.product(
        ("limit=10", "limit=100&skip=500", "skip=10000"),
        ("sort=new", "sort=old", "sort=top", "sort=hot"),
        ("", "owner_id=1"),
        ("", "created_after=2024-06-02T00:00:00Z"),
        ("", "created_before=2024-06-03T00:00:00Z"),
    )
]


def attack(url: str, token: str, name: str, until: float) -> tuple[str, float]:
    """Send the requests in a process of low priority.

    Return the statuses and the seconds of the latest answer.
    """
    os.nice(19)
    numbers = itertools.count()

    def ask(client: Client, _: int) -> object:
        number = next(numbers)
        value = KINDS[number % len(KINDS)] if name == "all kinds of pages" else number % 100 + 1
        return client.send("GET", ATTACKS[name].format(value))

    clients = [Client(url, token) for _ in range(CONNECTIONS)]
    answers = asyncio.run(press(clients, ask, until=lambda: time.monotonic() > until))  # type: ignore[arg-type]
    return json.dumps(answers.statuses), max(answer.seconds for answer in answers.all)


def searches_of(other: Person, url: str, seconds: float) -> Answers:
    """Return the answers to another client that searches meanwhile."""
    until = time.monotonic() + seconds

    async def search(client: Client, _: int) -> object:
        await asyncio.sleep(0.2)
        return await client.send("GET", "/posts?search=77777")

    return asyncio.run(press([Client(url, other.token)], search, until=lambda: time.monotonic() > until))  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_expensive_read_of_one_account_delays_others(
    start_server: Callable[..., Server],
    make_person: Callable[..., Person],
    connection: Connection,
    figure: Figure,
) -> None:
    hostile = make_person()
    others = [make_person() for _ in range(OTHERS)]
    for first in range(1, POSTS, POSTS_PER_STATEMENT):
        last = first + POSTS_PER_STATEMENT - 1
        connection.execute(text(POPULATE), {"owner": others[0].id, "posts": POSTS, "first": first, "last": last})
    values = {"users": FOLLOWED_USERS, "tags": FOLLOWED_TAGS, "hostile": hostile.id}
    for statement in FOLLOW:
        connection.execute(text(statement), values)
    connection.execute(text("VACUUM ANALYZE posts, post_stats, post_tags, follows, tag_follows"))
    server = start_server(WORKERS="2", RATE_LIMIT_PER_MINUTE="1000000")
    pages_of(others, server.url, 3)
    idle = min(pages_of(others, server.url, SECONDS).percentile_milliseconds(99) for _ in range(TRIES))
    figure(f"idle: others' page p99 {idle:.1f} ms")
    ratios: dict[str, float] = {}
    latest: dict[str, float] = {}
    with ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context("spawn")) as processes:
        for name in ATTACKS:
            for _ in range(TRIES):
                until = time.monotonic() + SECONDS + 1
                attacker = processes.submit(attack, server.url, hostile.token, name, until)
                time.sleep(0.5)
                searching = processes.submit(searches_of, others[1], server.url, SECONDS)
                answers = pages_of(others, server.url, SECONDS)
                statuses, seconds = attacker.result(timeout=60)
                searches = searching.result(timeout=60)
                p99 = answers.percentile_milliseconds(99)
                figure(
                    f"{name}: others' page p99 {p99:.0f} ms, {p99 / idle:.1f} x idle; their searches at most"
                    f" {max(answer.seconds for answer in searches.all):.2f} s; the attacker's requests {statuses}, at"
                    f" most {seconds:.2f} s"
                )
                assert set(answers.statuses) == {200}, (name, answers.statuses)
                assert set(searches.statuses) == {200}, (name, searches.statuses)
                latest[name] = max(latest.get(name, 0), seconds)
                ratios[name] = min(ratios.get(name, p99 / idle), p99 / idle)
                if ratios[name] <= MAX_RATIO:
                    break
    assert {name: ratio for name, ratio in ratios.items() if ratio > MAX_RATIO} == {}
    assert max(latest.values()) <= STATEMENT_TIMEOUT_SECONDS + TOLERANCE_SECONDS
