"""Removal of comments: one with replies stays as a tombstone, any other goes.

A tombstone that loses its last reply goes, too.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app.database.notification_delivery import forget_comments

_IDS = bindparam("ids", type_=ARRAY(BIGINT))
# The removal of a comment may also remove its ancestors, so all of them are locked, in the order of
# `app.database.locks`. FOR UPDATE makes a reply or a vote wait until it is known whether the comment stays. A parent
# never changes, so the path can be found before it is locked. LATERAL with LIMIT, so that each parent is looked up.
_LOCK_PATHS = text("""
    WITH RECURSIVE path AS (
        SELECT id, parent_id FROM comments WHERE id = ANY (:ids)
        UNION
        SELECT parent.id, parent.parent_id FROM path CROSS JOIN LATERAL (
            SELECT comments.id, comments.parent_id FROM comments WHERE comments.id = path.parent_id LIMIT 1
        ) AS parent
    )
    SELECT id, post_id, parent_id, version, deleted_at IS NOT NULL AS is_tombstone
    FROM comments WHERE id = ANY (ARRAY (SELECT id FROM path)) ORDER BY id FOR UPDATE
""").bindparams(_IDS)
# The comments that have replies outside of the paths.
_REPLIED_TO = text("""
    SELECT asked.id FROM unnest(:ids, :post_ids) AS asked (id, post_id) WHERE EXISTS (
        SELECT FROM comments AS reply
        WHERE reply.post_id = asked.post_id AND reply.parent_id = asked.id AND reply.id <> ALL (:path_ids)
    )
""").bindparams(*(bindparam(name, type_=ARRAY(BIGINT)) for name in ("ids", "post_ids", "path_ids")))
# `count(*)` makes PostgreSQL finish one step before the next.
_LOCK_COUNTS = text("""
    WITH of_posts AS MATERIALIZED (
        SELECT post_id FROM post_stats WHERE post_id = ANY (:post_ids) ORDER BY post_id FOR NO KEY UPDATE
    )
    SELECT FROM comment_stats WHERE comment_id = ANY (:ids) AND (SELECT count(*) FROM of_posts) >= 0
    ORDER BY comment_id FOR NO KEY UPDATE
""").bindparams(_IDS, bindparam("post_ids", type_=ARRAY(BIGINT)))
_LOCK_POSTS = text("""
    WITH comment AS MATERIALIZED (
        SELECT id FROM comments WHERE post_id = ANY (:ids) ORDER BY id FOR UPDATE
    ), of_users AS MATERIALIZED (
        SELECT user_id FROM user_stats
        WHERE user_id = ANY (ARRAY (SELECT owner_id FROM posts WHERE id = ANY (:ids)))
            AND (SELECT count(*) FROM comment) >= 0
        ORDER BY user_id FOR NO KEY UPDATE
    ), of_posts AS MATERIALIZED (
        SELECT post_id FROM post_stats WHERE post_id = ANY (:ids) AND (SELECT count(*) FROM of_users) >= 0
        ORDER BY post_id FOR NO KEY UPDATE
    )
    SELECT FROM comment_stats WHERE post_id = ANY (:ids) AND (SELECT count(*) FROM of_posts) >= 0
    ORDER BY comment_id FOR NO KEY UPDATE
""").bindparams(_IDS)
_REMOVE = text("DELETE FROM comments WHERE id = ANY (:ids)").bindparams(_IDS)
# A trigger empties them.
_BURY = text("UPDATE comments SET owner_id = NULL WHERE id = ANY (:ids)").bindparams(_IDS)


class LockedComment(NamedTuple):
    """A comment that is locked until the transaction ends."""

    id: int
    post_id: int
    parent_id: int | None
    version: int
    is_tombstone: bool


def lock_paths(connection: Connection | Session, ids: Collection[int]) -> list[LockedComment]:
    """Lock the comments and all their ancestors; return those that exist, by ascending id."""
    return [LockedComment(*row) for row in connection.execute(_LOCK_PATHS, {"ids": sorted(ids)})]


def remove(connection: Connection | Session, ids: Collection[int], paths: Sequence[LockedComment]) -> None:
    """Remove the comments, whose `paths` are locked, and their notifications."""
    wanted = {row.id for row in paths if row.id in ids}
    removable = [row for row in paths if row.is_tombstone or row.id in wanted]
    found = connection.execute(
        _REPLIED_TO,
        {
            "ids": [row.id for row in removable],
            "post_ids": [row.post_id for row in removable],
            "path_ids": [row.id for row in paths],
        },
    )
    replied_to: set[int | None] = {row.id for row in found}
    gone: list[LockedComment] = []
    # From the greatest id: a reply comes before its parent.
    for row in reversed(paths):
        if (row.is_tombstone or row.id in wanted) and row.id not in replied_to:
            gone.append(row)
        else:
            replied_to.add(row.parent_id)
    buried = wanted - {row.id for row in gone}
    counted = {row.id for row in gone} | {row.parent_id for row in gone if row.parent_id is not None}
    lock_counts(connection, {row.post_id for row in paths}, counted)
    if gone:
        connection.execute(_REMOVE, {"ids": [row.id for row in gone]})
    if buried:
        connection.execute(_BURY, {"ids": sorted(buried)})
    forget_comments(connection, [(row.post_id, row.id) for row in paths if row.id in wanted])


def lock_posts(connection: Connection | Session, post_ids: Sequence[int]) -> None:
    """Lock what the deletion of posts changes, in the order of `app.database.locks`. The posts must be locked."""
    connection.execute(_LOCK_POSTS, {"ids": post_ids})


def lock_counts(connection: Connection | Session, post_ids: Collection[int], comment_ids: Collection[int]) -> None:
    """Lock the counts of posts and comments, before comments or votes for them are changed."""
    connection.execute(_LOCK_COUNTS, {"post_ids": sorted(post_ids), "ids": sorted(comment_ids)})
