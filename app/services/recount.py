"""Find and repair counts that differ from the votes.

Triggers keep them equal. Repairs are for databases in which an operator has disabled the triggers for a while.

Posts are walked along their ids, in batches of one statement each, which sees the votes and the counts of one moment:
votes under way make no difference look like one.
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
# As the triggers do, it keeps the count that it replaces for readers who walk a list.
_REPAIR = text(f"""
    WITH wrong AS (
        SELECT posts.id, stats.votes AS votes_before, counted.votes, posts.published, posts.created_at
        {_DIFFERS} AND posts.id = ANY (:ids)
    ), mended AS (
        UPDATE post_stats SET votes = wrong.votes, published = wrong.published, created_at = wrong.created_at
        FROM wrong WHERE post_id = wrong.id RETURNING post_id
    ), kept AS (
        INSERT INTO post_stats_history (post_id, votes_before)
        SELECT id, votes_before FROM wrong WHERE votes_before <> votes
    )
    SELECT count(*) FROM mended
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """Posts up to this id were looked at; of these the ids with a wrong count, and how many of them were mended."""

    last_id: int
    wrong: list[int]
    mended: int


def recount(*, is_mending: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare all counts with the votes; mend those that differ, or only say which."""
    last = 0
    while True:
        with writing() as connection:
            # The votes of two thousand popular posts may take longer to count than a request may.
            lift_limit(connection, "LOCAL")
            end = connection.scalar(_BATCH, {"last": last, "rows": batch_rows})
            wrong = list(connection.scalars(_WRONG, {"last": last, "end": end}))
        if end is None:
            return
        yield Batch(end, wrong, _repair(wrong) if wrong and is_mending else 0)
        last = end


def wrong_in_sample(connection: Connection, rows: int) -> int:
    """How many of about so many posts, from pages drawn by lot, have a wrong count."""
    posts = connection.scalar(text("SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = 'posts'::regclass")) or 1
    percent = min(100.0, 100.0 * 4 * rows / posts)
    return connection.scalar(_SAMPLE, {"percent": percent, "rows": rows}) or 0


def _repair(ids: list[int]) -> int:
    """Set these counts to what the votes say, while votes go on.

    Who holds a count's lock knows that every vote is either committed, so that the statement after this lock sees it,
    or will be counted after the lock is given back.
    """
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (_LOCK_POSTS, _BEGIN, _LOCK_COUNTS):
            connection.execute(statement, {"ids": ids})
        return connection.scalar(_REPAIR, {"ids": ids}) or 0
