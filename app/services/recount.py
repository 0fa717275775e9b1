"""Find and repair vote counts that differ from the votes.

Triggers keep the counts equal. This module is for databases in which triggers were switched off for a while.

Posts are read by ascending id, one statement per batch. Each statement sees votes and counts in one snapshot, so
concurrent votes cause no false differences.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.database.sessions import writing
from app.database.watchdog import lift_limit

BATCH_ROWS = 2_000

_DIFFERS = """
    FROM posts LEFT JOIN post_stats AS stats ON stats.post_id = posts.id
    CROSS JOIN LATERAL (SELECT count(*) AS votes FROM votes WHERE votes.post_id = posts.id) AS counted
    WHERE (stats.votes, stats.published, stats.created_at)
        IS DISTINCT FROM (counted.votes, posts.published, posts.created_at)
"""
_BATCH = text("SELECT max(id) FROM (SELECT id FROM posts WHERE id > :last ORDER BY id LIMIT :rows) AS batch")
_WRONG = text(f"SELECT posts.id {_DIFFERS} AND posts.id > :last AND posts.id <= :end ORDER BY posts.id")
_SAMPLE = text(
    f"SELECT count(*) {_DIFFERS} AND posts.id IN (SELECT id FROM posts TABLESAMPLE SYSTEM (:percent) LIMIT :rows)"
)

_LOCK_POSTS = text("SELECT FROM posts WHERE id = ANY (:ids) ORDER BY id FOR KEY SHARE")
_BEGIN = text("""
    INSERT INTO post_stats (post_id, published, created_at)
    SELECT id, published, created_at FROM posts
    WHERE id = ANY (:ids) AND NOT EXISTS (SELECT FROM post_stats WHERE post_id = id) ORDER BY id
    ON CONFLICT DO NOTHING
""")
_LOCK_COUNTS = text("SELECT FROM post_stats WHERE post_id = ANY (:ids) ORDER BY post_id FOR NO KEY UPDATE")
_REPAIR = text(f"""
    WITH wrong AS (
        SELECT posts.id, counted.votes, posts.published, posts.created_at
        {_DIFFERS} AND posts.id = ANY (:ids)
    ), repaired AS (
        UPDATE post_stats SET votes = wrong.votes, published = wrong.published, created_at = wrong.created_at
        FROM wrong WHERE post_id = wrong.id RETURNING post_id
    )
    SELECT count(*) FROM repaired
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """The last checked id, the ids with wrong counts, and how many were repaired."""

    last_id: int
    wrong: list[int]
    repaired: int


def recount(*, is_repairing: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare all counts with the votes; repair wrong ones, or only report them."""
    last = 0
    while True:
        with writing() as connection:
            # Counting the votes of 2,000 popular posts may take longer than the time limit of a request.
            lift_limit(connection, "LOCAL")
            end = connection.scalar(_BATCH, {"last": last, "rows": batch_rows})
            wrong = list(connection.scalars(_WRONG, {"last": last, "end": end}))
        if end is None:
            return
        yield Batch(end, wrong, _repair(wrong) if wrong and is_repairing else 0)
        last = end


def wrong_in_sample(connection: Connection, rows: int) -> int:
    """Return the number of wrong counts in a random sample of about `rows` posts.

    The sample consists of random pages of the table.
    """
    posts = connection.scalar(text("SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = 'posts'::regclass")) or 1
    percent = min(100.0, 100.0 * 4 * rows / posts)
    return connection.scalar(_SAMPLE, {"percent": percent, "rows": rows}) or 0


def _repair(ids: list[int]) -> int:
    """Set these counts to the number of votes, while voting continues.

    The counts are locked first. Under the lock, each vote is in one of two states. Either it is committed, so that the
    next statement sees it, or its trigger will count it after the lock is released.
    """
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (_LOCK_POSTS, _BEGIN, _LOCK_COUNTS):
            connection.execute(statement, {"ids": ids})
        return connection.scalar(_REPAIR, {"ids": ids}) or 0
