"""The home page's list equals what a plain query finds, by each of its ways, and its walks meet each post once."""

import random
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from app.security import access_tokens
from app.services import feed
from app.services.feed import home
from tests.fixtures import Person
from tests.services.walking import make_voters, read, rows, walk

EXPECTED = """
    SELECT posts.id FROM posts JOIN users ON users.id = owner_id
    WHERE published AND NOT users.is_deleted AND (
        owner_id = :reader
        OR owner_id IN (SELECT followee_id FROM follows WHERE follower_id = :reader)
        OR tags && ARRAY(SELECT name FROM tag_follows JOIN tags ON tags.id = tag_id WHERE user_id = :reader)
    )
    ORDER BY posts.created_at DESC, posts.id DESC
"""
MANY = home.MAX_LOOKED_UP + 30
# Some authors write only what is older than the newest posts, some tag all that they write.
WRITE = """
    INSERT INTO posts (owner_id, title, content, created_at, published, tags)
    SELECT (CAST(:authors AS bigint[]))[1 + n % cardinality(CAST(:authors AS bigint[]))], 't', 'c',
        timestamptz '2026-11-01 00:00:00+00' + interval '1 minute' * (:first + n / 3), n % 11 > 0,
        CASE n % 5 WHEN 0 THEN ARRAY['a', 'b'] WHEN 1 THEN ARRAY['b', 't' || n % 300] ELSE '{}' END
    FROM generate_series(1, :count) AS n
"""
FOLLOW = "INSERT INTO follows (follower_id, followee_id) SELECT :reader, unnest(CAST(:ids AS bigint[]))"
FOLLOW_TAGS = "INSERT INTO tag_follows (user_id, tag_id) SELECT :reader, id FROM tags WHERE name = ANY (:names)"
# How many of the authors of old and of new posts, and which tags, the reader follows.
CASES: dict[str, tuple[int, int, list[str]]] = {
    "nothing": (0, 0, []),
    "few users": (5, 2, []),
    "few users and tags": (3, 3, ["a", "b", "t1"]),
    "few tags": (0, 0, ["b"]),
    "many users": (MANY, 20, []),
    "many users and few tags": (MANY, 5, ["a", "t6"]),
    "many users who wrote long ago": (MANY, 0, []),
    "many tags": (2, 1, [f"t{number}" for number in range(300)]),
}
Made = tuple[list[int], list[int]]


@pytest.fixture
def authors(connection: Connection, person: Person) -> Made:
    """Authors of old posts and of new ones; the reader is one of the second."""
    old, new = make_voters(connection, MANY + 10), [*make_voters(connection, 30), person.id]
    for first, count, some in ((0, 900, old), (1_000, home.MAX_WALKED + 200, new)):
        connection.execute(text(WRITE), {"authors": some, "first": first, "count": count})
    return old, new


def follow(connection: Connection, reader: Person, authors: Made, case: str) -> None:
    old, new = authors
    old_count, new_count, names = CASES[case]
    connection.execute(text(FOLLOW), {"reader": reader.id, "ids": old[:old_count] + new[:new_count]})
    connection.execute(text(FOLLOW_TAGS), {"reader": reader.id, "names": names})


def query(reader: Person, limit: int = 10) -> feed.PageQuery:
    return feed.PageQuery("home", limit, reader_id=reader.id)


@pytest.mark.parametrize("limit", [3, 40, 100])
@pytest.mark.parametrize("case", CASES)
def test_links_lead_through_the_list_of_a_plain_query_and_back(
    connection: Connection, person: Person, authors: Made, case: str, limit: int
) -> None:
    follow(connection, person, authors, case)
    expected = rows(connection, EXPECTED, reader=person.id)
    assert len(expected) >= 15

    forwards = walk(connection, person, query(person, limit))
    assert forwards.ids == expected
    backwards = walk(connection, person, query(person, limit), begin=forwards.last, is_backward=True)
    assert [page for page in reversed(backwards.pages) if page] == forwards.pages[:-1]


@pytest.mark.parametrize("case", ["few users and tags", "many users and few tags", "many users who wrote long ago"])
def test_walk_meets_each_post_once_that_stays_while_others_come_and_go(
    connection: Connection, person: Person, authors: Made, case: str
) -> None:
    follow(connection, person, authors, case)
    old, new = authors
    rng = random.Random(case)
    at_first = rows(connection, EXPECTED, reader=person.id)
    left: set[int] = set()

    def happen() -> None:
        some = rng.sample(at_first, 3)
        left.update(some[:2])
        connection.execute(text("DELETE FROM posts WHERE id = :id"), {"id": some[0]})
        connection.execute(text("UPDATE posts SET published = false WHERE id = :id"), {"id": some[1]})
        connection.execute(text("UPDATE posts SET title = 'edited' WHERE id = :id"), {"id": some[2]})
        written = {"authors": [old[0], new[0], person.id], "first": rng.randrange(2_000), "count": 4}
        connection.execute(text(WRITE), written)
        # Follows of others make new posts appear, and end again.
        connection.execute(
            text(FOLLOW + " ON CONFLICT DO NOTHING"), {"reader": person.id, "ids": rng.sample(new[20:-1], 2)}
        )
        connection.execute(
            text("DELETE FROM follows WHERE follower_id = :reader AND followee_id = ANY (:ids)"),
            {"reader": person.id, "ids": new[20:-1] if rng.random() < 0.3 else []},
        )

    met = walk(connection, person, query(person, 20), between=happen).ids

    assert len(met) == len(set(met))
    stayed = [post_id for post_id in at_first if post_id not in left]
    assert [post_id for post_id in met if post_id in {*stayed}] == stayed
    assert len(stayed) > 20


@pytest.mark.parametrize("case", ["few users and tags", "many users and few tags", "many users who wrote long ago"])
def test_posts_of_deleted_accounts_are_in_no_walk(
    connection: Connection, person: Person, authors: Made, case: str
) -> None:
    follow(connection, person, authors, case)
    before = rows(connection, EXPECTED, reader=person.id)
    deleted = [authors[0][0], authors[1][0], authors[1][7]]
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = ANY (:ids)"), {"ids": deleted})
    connection.execute(text("INSERT INTO deletions (user_id) SELECT unnest(:ids)"), {"ids": deleted})

    expected = rows(connection, EXPECTED, reader=person.id)
    assert walk(connection, person, query(person, 30)).ids == expected
    assert len(expected) < len(before)


def test_readers_of_one_batch_get_their_own_pages(
    connection: Connection, authors: Made, make_person: Callable[..., Person]
) -> None:
    readers = {case: make_person() for case in CASES}
    for case, reader in readers.items():
        follow(connection, reader, authors, case)
    alone = {case: read(connection, reader, query(reader)) for case, reader in readers.items()}

    requests = [
        feed.PageRequest(access_tokens.verify(reader.token), query(reader, limit))
        for limit in (10, 1)
        for reader in readers.values()
    ]
    outcomes = feed.read(connection, requests)
    for outcome, expected in zip(outcomes, alone.values(), strict=False):
        assert isinstance(outcome, feed.PageResponse)
        assert outcome.json_array == expected.json_array
        assert outcome.etag == expected.etag
        assert outcome.page.next_cursor == expected.page.next_cursor
    for outcome, reader in zip(outcomes[len(readers) :], readers.values(), strict=True):
        assert isinstance(outcome, feed.PageResponse)
        assert [row.id for row in outcome.page.rows] == rows(connection, EXPECTED, reader=reader.id)[:1]
