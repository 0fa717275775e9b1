"""Delivery of notifications, in the transaction of their cause and together with their events.

Who gets one is decided by the function `log_event` (migration 0044). It locks no row, so that it can be called anywhere
in a transaction.
"""

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT
from sqlalchemy.orm import Session

from app.models import EventKind

# Names of a text that are looked up. Others are only text.
MAX_MENTIONS = 10

# Not within addresses of mail or of the web. Possessive, so that it never goes back: it is linear.
_MENTION = re.compile(r"(?<![A-Za-z0-9_.+/@-])@([A-Za-z0-9][A-Za-z0-9_.-]*+)(?!@)")
_MIN_NAME, _MAX_NAME = 3, 30


def mentioned_names(content: str) -> list[str]:
    """Return the usernames that the text mentions as `@name`, in lower case: the first `MAX_MENTIONS`."""
    names: dict[str, None] = {}
    for match in _MENTION.finditer(content):
        name = match[1].rstrip(".-").lower()
        if _MIN_NAME <= len(name) <= _MAX_NAME:
            names[name] = None
            if len(names) == MAX_MENTIONS:
                break
    return [*names]


# The function of migration 0044 writes the event, unless it is NULL, and a notification for each of the recipients and
# of the users with these names. Its plans are kept by each connection: planning them anew took longer than the rest.
LOG_EVENT = "log_event({event}, {actor_id}, {post_id}, {comment_id}, {recipients}, {kinds}, :names)"
NAMES = bindparam("names", type_=ARRAY(TEXT))
_VALUES: tuple[BindParameter[Any], ...] = (
    NAMES,
    bindparam("event", type_=TEXT),
    *(bindparam(name, type_=BIGINT) for name in ("actor_id", "post_id", "comment_id")),
    bindparam("recipients", type_=ARRAY(BIGINT)),
    bindparam("kinds", type_=ARRAY(TEXT)),
)
_NAMED = {name: f":{name}" for name in ("event", "actor_id", "post_id", "comment_id", "recipients", "kinds")}
_LOG = text(f"SELECT {LOG_EVENT.format(**_NAMED)}").bindparams(*_VALUES)
_LOG_IF_PUBLISHED = text(f"""
    SELECT {LOG_EVENT.format(**_NAMED | {"post_id": "posts.id", "comment_id": "comments.id"})}
    FROM comments JOIN posts ON posts.id = comments.post_id AND posts.published
    WHERE comments.id = :comment_id AND comments.removal_reason IS NULL
""").bindparams(*_VALUES[:-4], *_VALUES[-3:])
_NOTHING: dict[str, object] = {
    "event": None, "actor_id": None, "post_id": None, "comment_id": None, "recipients": [], "kinds": [], "names": [],
}  # fmt: skip


def post_changed(db: Session, kind: EventKind, *, actor_id: int, post_id: int, names: Collection[str]) -> None:
    """Write an event of a published post, and notify the users with these names."""
    db.execute(_LOG, _NOTHING | {"event": kind, "actor_id": actor_id, "post_id": post_id, "names": [*names]})


def comment_changed(db: Session, comment_id: int, *, actor_id: int, names: Collection[str]) -> None:
    """Notify the users with these names of the comment, unless it is removed or its post not published."""
    values = _NOTHING | {"actor_id": actor_id, "comment_id": comment_id, "names": [*names]}
    del values["post_id"]
    db.execute(_LOG_IF_PUBLISHED, values)


def followed(db: Session, *, actor_id: int, user_id: int) -> None:
    """Notify the user of the follow, once while the notification exists."""
    db.execute(_LOG, _NOTHING | {"actor_id": actor_id, "recipients": [user_id], "kinds": ["follow"]})


# Nothing is sent twice while it is unread. The newest 100 are searched, which bounds what is read.
_MODERATED = text("""
    WITH notified AS (
        INSERT INTO notifications (user_id, kind, post_id, comment_id)
        SELECT :user_id, 'moderation', :post_id, :comment_id
        WHERE NOT EXISTS (
            SELECT FROM (
                SELECT kind, post_id, comment_id FROM notifications
                WHERE user_id = :user_id AND read_at IS NULL ORDER BY id DESC LIMIT 100
            ) AS newest
            WHERE kind = 'moderation' AND (post_id, comment_id) IS NOT DISTINCT FROM (:post_id, :comment_id)
        )
        RETURNING user_id
    )
    INSERT INTO events (kind, post_id, comment_id, user_id)
    SELECT 'notification', :post_id, :comment_id, user_id FROM notified
""").bindparams(*(bindparam(name, type_=BIGINT) for name in ("user_id", "post_id", "comment_id")))


def moderated(db: Session, user_id: int, *, post_id: int | None = None, comment_id: int | None = None) -> None:
    """Notify the user that a moderator has acted on their content or account, without naming the moderator."""
    db.execute(_MODERATED, {"user_id": user_id, "post_id": post_id, "comment_id": comment_id})


# The condition of the unique index. Rows are locked by ascending id.
_HAS_CAUSE = "kind IN ('reply', 'comment', 'mention')"
_FORGET_COMMENTS = text(f"""
    DELETE FROM notifications WHERE id IN (
        SELECT notifications.id FROM unnest(:post_ids, :comment_ids) AS gone (post_id, comment_id)
        JOIN notifications USING (post_id, comment_id) WHERE {_HAS_CAUSE}
        ORDER BY notifications.id FOR UPDATE OF notifications
    )
""").bindparams(*(bindparam(name, type_=ARRAY(BIGINT)) for name in ("post_ids", "comment_ids")))
_FORGET_POSTS = text(f"""
    DELETE FROM notifications WHERE id IN (
        SELECT id FROM notifications WHERE post_id = ANY (:post_ids) AND {_HAS_CAUSE} ORDER BY id FOR UPDATE
    )
""").bindparams(bindparam("post_ids", type_=ARRAY(BIGINT)))

_FORGET_ACCOUNT = text(f"""
    DELETE FROM notifications WHERE id IN (
        SELECT id FROM notifications
        WHERE user_id = :user_id OR (actor_id = :user_id AND kind = 'follow')
            OR (post_id = ANY (:post_ids) AND {_HAS_CAUSE}) ORDER BY id FOR UPDATE
    )
""").bindparams(bindparam("post_ids", type_=ARRAY(BIGINT)))
_FORGET_SOME = text("""
    DELETE FROM notifications WHERE id IN (
        SELECT id FROM notifications WHERE id = ANY (ARRAY (
            (SELECT id FROM notifications WHERE user_id = :user_id ORDER BY id LIMIT :limit)
            UNION (SELECT id FROM notifications WHERE actor_id = :user_id AND kind = 'follow' LIMIT :limit)
            LIMIT :limit
        )) ORDER BY id FOR UPDATE
    )
""")


def forget_comments(connection: Connection | Session, comments: Collection[tuple[int, int]]) -> None:
    """Remove the notifications of comments, which are given as post and comment."""
    if comments:
        post_ids, comment_ids = zip(*comments, strict=True)
        connection.execute(_FORGET_COMMENTS, {"post_ids": [*post_ids], "comment_ids": [*comment_ids]})


def forget_account(connection: Connection | Session, user_id: int, post_ids: Collection[int]) -> None:
    """Remove the notifications that a user got, and those of the user's follows and posts.

    One statement, so that two accounts that are deleted at once lock notifications of each other in one order.
    """
    connection.execute(_FORGET_ACCOUNT, {"user_id": user_id, "post_ids": [*post_ids]})


def forget_some(connection: Connection, user_id: int, limit: int) -> int:
    """Remove some notifications that a user got, and of the user's follows; return their number."""
    return connection.execute(_FORGET_SOME, {"user_id": user_id, "limit": limit}).rowcount


def forget_posts(connection: Connection | Session, post_ids: Collection[int]) -> None:
    """Remove the notifications of posts and of the comments on them."""
    connection.execute(_FORGET_POSTS, {"post_ids": [*post_ids]})
