"""Find and repair vote counts that differ from the votes, and lists and counts of tags that differ from the posts.

Triggers keep them equal. This module is for databases in which triggers were switched off for a while.

Posts and tags are read by ascending id, one statement per batch. Each statement sees rows and counts in one snapshot,
so concurrent writes cause no false differences.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, TextClause, text

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

# The row of a tag's list that a post lacks or has too many.
_LISTED_WRONGLY = """
    FROM posts WHERE EXISTS (
        SELECT FROM unnest(posts.tags) AS tag (name) FULL JOIN (
            SELECT tags.name, post_tags.published, post_tags.created_at
            FROM post_tags JOIN tags ON tags.id = post_tags.tag_id WHERE post_tags.post_id = posts.id
        ) AS listed ON listed.name = tag.name
        WHERE tag.name IS NULL
            OR (listed.published, listed.created_at) IS DISTINCT FROM (posts.published, posts.created_at)
    )
"""
_WRONG_LISTS = text(f"SELECT posts.id {_LISTED_WRONGLY} AND posts.id > :last AND posts.id <= :end ORDER BY posts.id")
_LISTS_SAMPLE = text(f"""
    SELECT count(*) {_LISTED_WRONGLY} AND posts.id IN (SELECT id FROM posts TABLESAMPLE SYSTEM (:percent) LIMIT :rows)
""")
_LOCK_TAGGED_POSTS = text("SELECT FROM posts WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE")
_CREATE_TAGS = text("SELECT create_tags(ARRAY(SELECT DISTINCT unnest(tags) FROM posts WHERE id = ANY (:ids)))")
_UNLIST = text("DELETE FROM post_tags WHERE post_id = ANY (:ids)")
_LIST = text("""
    INSERT INTO post_tags (post_id, tag_id, published, created_at)
    SELECT posts.id, tags.id, posts.published, posts.created_at
    FROM posts JOIN tags ON tags.name = ANY (posts.tags) WHERE posts.id = ANY (:ids)
""")

_TAG_DIFFERS = """
    FROM tags LEFT JOIN tag_stats AS stats ON stats.tag_id = tags.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS posts FROM post_tags WHERE post_tags.tag_id = tags.id AND post_tags.published
    ) AS listed
    CROSS JOIN LATERAL (
        SELECT count(*) AS followers FROM tag_follows WHERE tag_follows.tag_id = tags.id
    ) AS following
    WHERE (stats.posts, stats.followers) IS DISTINCT FROM (listed.posts, following.followers)
"""
_TAG_BATCH = text("SELECT max(id) FROM (SELECT id FROM tags WHERE id > :last ORDER BY id LIMIT :rows) AS batch")
_WRONG_TAGS = text(f"SELECT tags.id {_TAG_DIFFERS} AND tags.id > :last AND tags.id <= :end ORDER BY tags.id")
# Without popular tags: counting their posts takes long.
_TAGS_SAMPLE = text(f"""
    SELECT count(*) {_TAG_DIFFERS} AND tags.id IN (
        SELECT id FROM tags LEFT JOIN tag_stats ON tag_id = id
        WHERE coalesce(posts + followers, 0) <= 100 ORDER BY id DESC LIMIT :rows
    )
""")
_BEGIN_TAGS = text("""
    INSERT INTO tag_stats (tag_id) SELECT id FROM tags WHERE id = ANY (:ids) ORDER BY id ON CONFLICT DO NOTHING
""")
_LOCK_TAG_COUNTS = text("SELECT FROM tag_stats WHERE tag_id = ANY (:ids) ORDER BY tag_id FOR NO KEY UPDATE")
_REPAIR_TAGS = text(f"""
    WITH wrong AS (
        SELECT tags.id, listed.posts, following.followers {_TAG_DIFFERS} AND tags.id = ANY (:ids)
    ), repaired AS (
        UPDATE tag_stats SET posts = wrong.posts, followers = wrong.followers
        FROM wrong WHERE tag_id = wrong.id RETURNING tag_id
    )
    SELECT count(*) FROM repaired
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """The last checked id, the ids with wrong rows or counts, and how many were repaired."""

    last_id: int
    wrong: list[int]
    repaired: int
    table: Literal["post", "tag"] = "post"


def recount(*, is_repairing: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare all counts with the votes; repair wrong ones, or only report them."""
    for end, wrong in _batches(_BATCH, _WRONG, batch_rows):
        yield Batch(end, wrong, _repair(wrong) if wrong and is_repairing else 0)


def recount_tags(*, is_repairing: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare the lists of all tags with the posts, then their counts with the lists and followers.

    Repair wrong ones, or only report them.
    """
    for end, wrong in _batches(_BATCH, _WRONG_LISTS, batch_rows):
        yield Batch(end, wrong, _repair_lists(wrong) if wrong and is_repairing else 0)
    for end, wrong in _batches(_TAG_BATCH, _WRONG_TAGS, batch_rows):
        yield Batch(end, wrong, _repair_tag_counts(wrong) if wrong and is_repairing else 0, "tag")


def _batches(batch: TextClause, look: TextClause, rows: int) -> Iterator[tuple[int, list[int]]]:
    """Return the last id and the wrong ids of each batch."""
    last = 0
    while True:
        with writing() as connection:
            # Counting the votes of 2,000 popular posts may take longer than the time limit of a request.
            lift_limit(connection, "LOCAL")
            end = connection.scalar(batch, {"last": last, "rows": rows})
            wrong = list(connection.scalars(look, {"last": last, "end": end}))
        if end is None:
            return
        yield end, wrong
        last = end


def wrong_in_sample(connection: Connection, rows: int) -> int:
    """Return the number of wrong counts and tags in a random sample of about `rows` posts, and of new tags.

    The sample of posts consists of random pages of the table. The new tags are `rows`, without popular ones.
    """
    posts = connection.scalar(text("SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = 'posts'::regclass")) or 1
    sample = {"percent": min(100.0, 100.0 * 4 * rows / posts), "rows": rows}
    return sum(connection.scalar(statement, sample) or 0 for statement in (_SAMPLE, _LISTS_SAMPLE, _TAGS_SAMPLE))


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


def _repair_lists(ids: list[int]) -> int:
    """Write the tags of these posts into the lists of their tags. Return the number of posts.

    The posts are locked, so that no writer changes their tags meanwhile. Counts are repaired after all lists.
    """
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (_LOCK_TAGGED_POSTS, _CREATE_TAGS, _UNLIST, _LIST):
            connection.execute(statement, {"ids": ids})
    return len(ids)


def _repair_tag_counts(ids: list[int]) -> int:
    """Set these counts under a lock, as `_repair` does."""
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (_BEGIN_TAGS, _LOCK_TAG_COUNTS):
            connection.execute(statement, {"ids": ids})
        return connection.scalar(_REPAIR_TAGS, {"ids": ids}) or 0
