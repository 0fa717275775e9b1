"""Find and repair counts that differ from the rows that they count.

Triggers keep the counts equal. This module is for databases in which triggers were switched off for a while.

Posts, or accounts, are read by ascending id, one statement per batch. Each statement sees rows and counts in one
snapshot, so concurrent writes cause no false differences.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text

from app.database.sessions import writing
from app.database.watchdog import lift_limit

BATCH_ROWS = 2_000


class Counts(NamedTuple):
    """The counts of the rows of a table, with the statements that compare and repair them.

    `begin` adds missing rows of counts, and `lock` locks them.
    """

    table: str
    counted: str
    wrong: TextClause
    sample: TextClause
    begin: TextClause
    lock: TextClause
    repair: TextClause


_POSTS_DIFFER = """
    FROM posts LEFT JOIN post_stats AS stats ON stats.post_id = posts.id
    CROSS JOIN LATERAL (SELECT count(*) AS votes FROM votes WHERE votes.post_id = posts.id) AS counted
    WHERE (stats.votes, stats.published, stats.created_at)
        IS DISTINCT FROM (counted.votes, posts.published, posts.created_at)
"""
# An account without a row has zeros.
_USERS_DIFFER = """
    FROM users LEFT JOIN user_stats AS stats ON stats.user_id = users.id
    CROSS JOIN LATERAL (
        SELECT (SELECT count(*) FROM posts WHERE owner_id = users.id AND published) AS posts,
            (SELECT count(*) FROM follows WHERE followee_id = users.id) AS followers,
            (SELECT count(*) FROM follows WHERE follower_id = users.id) AS following
    ) AS counted
    WHERE (coalesce(stats.posts, 0), coalesce(stats.followers, 0), coalesce(stats.following, 0))
        <> (counted.posts, counted.followers, counted.following)
"""


def _wrong(table: str, differ: str) -> tuple[TextClause, TextClause]:
    """Return the statements for a range of ids, and for a sample of the table."""
    sampled = f"SELECT id FROM {table} TABLESAMPLE SYSTEM (:percent) LIMIT :rows"
    return (
        text(f"SELECT {table}.id {differ} AND {table}.id > :last AND {table}.id <= :end ORDER BY {table}.id"),
        text(f"SELECT count(*) {differ} AND {table}.id IN ({sampled})"),
    )


POSTS = Counts(
    "posts",
    "votes",
    *_wrong("posts", _POSTS_DIFFER),
    begin=text("""
        INSERT INTO post_stats (post_id, published, created_at)
        SELECT id, published, created_at FROM posts
        WHERE id = ANY (:ids) AND NOT EXISTS (SELECT FROM post_stats WHERE post_id = id) ORDER BY id
        ON CONFLICT DO NOTHING
    """),
    lock=text("SELECT FROM post_stats WHERE post_id = ANY (:ids) ORDER BY post_id FOR NO KEY UPDATE"),
    repair=text(f"""
        WITH wrong AS (
            SELECT posts.id, counted.votes, posts.published, posts.created_at
            {_POSTS_DIFFER} AND posts.id = ANY (:ids)
        ), repaired AS (
            UPDATE post_stats SET votes = wrong.votes, published = wrong.published, created_at = wrong.created_at
            FROM wrong WHERE post_id = wrong.id RETURNING post_id
        )
        SELECT count(*) FROM repaired
    """),
)
USERS = Counts(
    "users",
    "posts and follows",
    *_wrong("users", _USERS_DIFFER),
    begin=text("""
        INSERT INTO user_stats (user_id) SELECT id FROM users WHERE id = ANY (:ids) ORDER BY id ON CONFLICT DO NOTHING
    """),
    lock=text("SELECT FROM user_stats WHERE user_id = ANY (:ids) ORDER BY user_id FOR NO KEY UPDATE"),
    repair=text(f"""
        WITH wrong AS (
            SELECT users.id, counted.* {_USERS_DIFFER} AND users.id = ANY (:ids)
        ), repaired AS (
            UPDATE user_stats SET posts = wrong.posts, followers = wrong.followers, following = wrong.following
            FROM wrong WHERE user_id = wrong.id RETURNING user_id
        )
        SELECT count(*) FROM repaired
    """),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The last checked id, the ids with wrong counts, and how many were repaired."""

    last_id: int
    wrong: list[int]
    repaired: int


def recount(counts: Counts = POSTS, *, is_repairing: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare all counts with what they count; repair wrong ones, or only report them."""
    next_end = text(
        f"SELECT max(id) FROM (SELECT id FROM {counts.table} WHERE id > :last ORDER BY id LIMIT :rows) AS batch"
    )
    last = 0
    while True:
        with writing() as connection:
            # Counting the votes of 2,000 popular posts may take longer than the time limit of a request.
            lift_limit(connection, "LOCAL")
            end = connection.scalar(next_end, {"last": last, "rows": batch_rows})
            wrong = list(connection.scalars(counts.wrong, {"last": last, "end": end}))
        if end is None:
            return
        yield Batch(end, wrong, _repair(counts, wrong) if wrong and is_repairing else 0)
        last = end


def wrong_in_sample(connection: Connection, rows: int, counts: Counts = POSTS) -> int:
    """Return the number of wrong counts in a random sample of about `rows` rows of the table.

    The sample consists of random pages of the table.
    """
    size = text("SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = CAST(:table AS regclass)")
    percent = min(100.0, 100.0 * 4 * rows / (connection.scalar(size, {"table": counts.table}) or 1))
    return connection.scalar(counts.sample, {"percent": percent, "rows": rows}) or 0


def _repair(counts: Counts, ids: list[int]) -> int:
    """Set these counts to the number of rows, while writing continues.

    The counts are locked first. Under the lock, each vote, post or follow is in one of two states. Either it is
    committed, so that the next statement sees it, or its trigger will count it after the lock is released.
    """
    lock_rows = text(f"SELECT FROM {counts.table} WHERE id = ANY (:ids) ORDER BY id FOR KEY SHARE")
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (lock_rows, counts.begin, counts.lock):
            connection.execute(statement, {"ids": ids})
        return connection.scalar(counts.repair, {"ids": ids}) or 0
