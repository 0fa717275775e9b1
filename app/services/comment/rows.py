"""Rows of the statements that read comments, and their JSON."""

from typing import NamedTuple

from app.config import get_settings
from app.schemas.raw_json import json_time, quoted
from app.security.email_addresses import placeholder_email

# Maximum size of a response. A list ends before the comment that would exceed it.
MAX_PAGE_BYTES = 1_000_000


class CommentRow(NamedTuple):
    """A comment with its author and counts, as one reader sees it.

    The fields are those of `COLUMNS`, in their order. Times are PostgreSQL's text. Tombstones have no author.
    """

    id: int
    post_id: int
    parent_id: int | None
    depth: int
    content: str
    created_at: str
    updated_at: str
    version: int
    author_id: int | None
    username: str
    author_created_at: str
    email: str
    votes: int
    replies: int
    voted: bool
    removal_reason: str | None


# A comment of a deleted account, which awaits removal, is shown as the tombstone that it will be. So is a removed one,
# but to its author and moderators. Without replies it is hidden, and no reply of its parent.
IS_REMOVED_LEAF = (
    "(c.removal_reason IS NOT NULL AND c.replies = 0 AND c.owner_id <> {reader_id} AND NOT {is_moderator})"
)
COLUMNS = """
    c.id, c.post_id, c.parent_id, c.depth, CASE WHEN author.id IS NULL THEN '' ELSE c.content END AS content,
    c.created_at::text, c.updated_at::text, c.version, author.id AS author_id, author.username,
    author.created_at::text AS author_created_at, author.email, c.votes,
    c.replies - CASE WHEN c.replies > 0 THEN (
        SELECT count(*) FROM comments AS reply
        WHERE reply.post_id = c.post_id AND reply.parent_id = c.id AND reply.removal_reason IS NOT NULL
            AND reply.owner_id <> {reader_id} AND NOT {is_moderator}
            AND (SELECT stats.replies FROM comment_stats AS stats WHERE stats.comment_id = reply.id) = 0
    ) ELSE 0 END AS replies,
    EXISTS (
        SELECT FROM comment_votes WHERE comment_votes.comment_id = c.id AND comment_votes.user_id = {reader_id}
    ) AS voted,
    CASE WHEN author.id IS NOT NULL THEN c.removal_reason END AS removal_reason
"""
# Subqueries with LIMIT 1 are looked up row by row: the planner does not know how few rows there are, and would read
# whole tables.
AUTHOR = """
    LEFT JOIN LATERAL (
        SELECT users.id, users.username, users.created_at, users.email FROM users
        WHERE users.id = c.owner_id AND NOT users.is_deleted
            AND (c.removal_reason IS NULL OR c.owner_id = {reader_id} OR {is_moderator}) LIMIT 1
    ) AS author ON true
"""
# PostgreSQL knows the length of a long text without reading it.
BY_ID = """
    CROSS JOIN LATERAL (
        SELECT comments.*, octet_length(comments.content) AS octets, stats.votes, stats.replies
        FROM comments JOIN comment_stats AS stats ON stats.comment_id = comments.id
        WHERE comments.id = listed.id LIMIT 1
    ) AS c
"""


def serialize(row: CommentRow, reader_id: int) -> bytes:
    """Return the row as `CommentOut`, without the closing brace.

    The keys have the order of its fields. The author's e-mail address is a placeholder, unless it is the reader's own
    or `PUBLIC_EMAILS` is true.
    """
    author = "null"
    if row.author_id is not None:
        is_real = row.author_id == reader_id or get_settings().public_emails
        email = row.email if is_real else placeholder_email(row.author_id, row.username)
        author = (
            f'{{"id":{row.author_id},"username":{quoted(row.username)},'
            f'"created_at":"{json_time(row.author_created_at)}","email":{quoted(email)}}}'
        )
    return (
        f'{{"id":{row.id},"post_id":{row.post_id},"parent_id":{"null" if row.parent_id is None else row.parent_id},'
        f'"depth":{row.depth},"content":{quoted(row.content)},"author":{author},'
        f'"created_at":"{json_time(row.created_at)}","updated_at":"{json_time(row.updated_at)}",'
        f'"deleted":{"true" if row.author_id is None else "false"},"votes":{row.votes},'
        f'"voted":{"true" if row.voted else "false"},"reply_count":{row.replies},'
        f'"removal_reason":{"null" if row.removal_reason is None else quoted(row.removal_reason)}'
    ).encode()
