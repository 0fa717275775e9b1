"""Comments: write, read, change and remove them. Threads are in `thread`, votes for comments in `services.vote`.

A comment exists for those who may see its post. A new comment needs a published post.
"""

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    String,
    bindparam,
    case,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import Session

from app import models
from app.database import comment_removal
from app.database import notification_delivery as delivery
from app.errors import (
    Blocked,
    CommentNotFound,
    DomainError,
    Locked,
    NotAuthenticated,
    NotAuthorized,
    PostNotFound,
    PreconditionFailed,
    RepliesTooDeep,
    UserNotFound,
)
from app.models import Comment, EventKind
from app.models.base import LARGEST_KEY, possible_key
from app.schemas.comment import CommentIn, CommentOut
from app.schemas.page import KeysetPage
from app.security import moderators
from app.services.comment.rows import (
    AUTHOR,
    BY_ID,
    COLUMNS,
    IS_REMOVED_LEAF,
    MAX_PAGE_BYTES,
    CommentRow,
    serialize,
)
from app.services.comment.thread import Thread, ThreadQuery, ThreadRequest, position_of, read

__all__ = ["Thread", "ThreadQuery", "ThreadRequest", "position_of", "read"]

MAX_DEPTH = 32
# Rows that a list of one user's comments reads at most, where it must skip many of invisible posts.
MAX_ROWS_READ = 1_000

# Locks in the order of `app.database.locks`; `count(*)` makes PostgreSQL finish one step before the next. The locks
# make deletions of the account, the post or the parent wait, and the other way round.
_LOG_EVENT = delivery.LOG_EVENT.format(
    event=f"'{EventKind.COMMENT}'",
    actor_id=":user_id",
    post_id="post.id",
    comment_id="written.id",
    recipients="ARRAY[parent.owner_id, post.owner_id]",
    kinds="ARRAY['reply', 'comment']",
)
_WRITE = text(f"""
    WITH author AS MATERIALIZED (
        SELECT id FROM users WHERE id = :user_id AND is_active FOR KEY SHARE
    ), post AS MATERIALIZED (
        SELECT id, owner_id, locked FROM posts WHERE id = :post_id AND published AND (SELECT count(*) FROM author) > 0
            AND (SELECT NOT is_deleted FROM users WHERE users.id = owner_id)
        FOR KEY SHARE
    ), parent AS MATERIALIZED (
        SELECT id, owner_id, depth FROM comments
        WHERE id = :parent_id AND post_id = :post_id AND deleted_at IS NULL AND removal_reason IS NULL
            AND (SELECT count(*) FROM post) > 0
            AND (SELECT NOT is_deleted FROM users WHERE users.id = owner_id)
        FOR KEY SHARE
    ), refusal AS MATERIALIZED (
        SELECT FROM blocks WHERE blocker_id = (SELECT owner_id FROM post) AND blocked_id = :user_id
        UNION ALL SELECT FROM blocks WHERE blocker_id = (SELECT owner_id FROM parent) AND blocked_id = :user_id
    ), written AS (
        INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
        SELECT post.id, parent.id, author.id, :content, coalesce(parent.depth + 1, 0)
        FROM author CROSS JOIN post LEFT JOIN parent ON true
        WHERE CASE WHEN :parent_id IS NULL THEN true ELSE parent.depth < :max_depth END
            AND NOT post.locked AND NOT EXISTS (SELECT FROM refusal)
        RETURNING id
    )
    SELECT EXISTS (SELECT FROM author) AS has_author, EXISTS (SELECT FROM post) AS has_post,
        (SELECT locked FROM post) AS is_locked, EXISTS (SELECT FROM parent) AS has_parent,
        EXISTS (SELECT FROM refusal) AS is_blocked, (SELECT id FROM written) AS id,
        (SELECT {_LOG_EVENT} FROM written CROSS JOIN post LEFT JOIN parent ON true) AS is_logged
""").bindparams(
    *(bindparam(name, type_=BigInteger) for name in ("user_id", "post_id", "parent_id")),
    bindparam("content", type_=String),
    bindparam("max_depth", MAX_DEPTH, type_=Integer),
    delivery.NAMES,
)


def write(db: Session, author: models.User, post_id: int, new: CommentIn) -> CommentOut:
    """Write a comment on a published post, and notify other users of it.

    Notifications are in the same statement. The count of the post, for which other comments on it wait, is locked by a
    trigger at its end. Raises `PostNotFound`, `CommentNotFound` for a parent that is missing or deleted,
    `RepliesTooDeep`, `Locked`, and `Blocked` if the author of the post or of the parent has blocked this one.
    """
    # No comment has the id 0.
    parent_id = None if new.parent_id is None else possible_key(new.parent_id) or 0
    values = {
        "user_id": author.id,
        "post_id": possible_key(post_id),
        "parent_id": parent_id,
        "content": new.content,
        "names": delivery.mentioned_names(new.content),
    }
    found = db.execute(_WRITE, values).one()
    if not found.has_author:
        raise NotAuthenticated
    if not found.has_post:
        raise PostNotFound(post_id)
    if new.parent_id is not None and not found.has_parent:
        raise CommentNotFound(new.parent_id)
    if found.is_blocked:
        raise Blocked
    if found.is_locked:
        raise Locked
    if found.id is None:
        raise RepliesTooDeep
    return as_schema(get(db, author, found.id), author)


# The condition that the reader may see the post of the comment `c`. A scalar subquery, which is looked up row by row.
_IS_VISIBLE = """
    coalesce((
        SELECT NOT users.is_deleted AND (posts.published OR posts.owner_id = :reader_id OR :is_moderator)
        FROM posts JOIN users ON users.id = posts.owner_id WHERE posts.id = c.post_id
    ), false)
"""
_READER = (bindparam("reader_id", type_=BigInteger), bindparam("is_moderator", type_=Boolean))
_NAMED = {"reader_id": ":reader_id", "is_moderator": ":is_moderator"}
_GET = text(f"""
    SELECT {COLUMNS.format(**_NAMED)} FROM (SELECT CAST(:id AS bigint) AS id) AS listed
    {BY_ID} {AUTHOR.format(**_NAMED)}
    WHERE {_IS_VISIBLE} AND NOT {IS_REMOVED_LEAF.format(**_NAMED)}
""").bindparams(*_READER, bindparam("id", type_=BigInteger))


def get(db: Session, reader: models.User, comment_id: int) -> CommentRow:
    """Return the comment as the reader sees it, also a tombstone.

    Raises `CommentNotFound`, also for a removed one without replies.
    """
    values = {"id": possible_key(comment_id), "reader_id": reader.id, "is_moderator": reader.is_moderator}
    row = db.execute(_GET, values).one_or_none()
    if row is None:
        raise CommentNotFound(comment_id)
    return CommentRow(*row)


def as_json(row: CommentRow, reader: models.User) -> bytes:
    """Return the comment as JSON."""
    return serialize(row, reader.id) + b"}"


def as_schema(row: CommentRow, reader: models.User) -> CommentOut:
    """Return the comment as the schema of its JSON."""
    return CommentOut.model_validate_json(as_json(row, reader))


# The newest comments, read up to `MAX_ROWS_READ`. The last of that many is returned even if it is not visible, because
# the next page continues after it. Rows that start past `MAX_PAGE_BYTES` are dropped.
_IS_LISTED = f"({_IS_VISIBLE} AND (c.removal_reason IS NULL OR :owner_id = :reader_id OR :is_moderator))"
_LIST = text(f"""
    SELECT * FROM (
        SELECT listed.place, listed.is_visible, sum(c.octets) OVER (ORDER BY listed.place) - c.octets AS octets_before,
            {COLUMNS.format(**_NAMED)}
        FROM (
            SELECT c.*, {_IS_LISTED} AS is_visible FROM (
                SELECT comments.id, comments.post_id, comments.removal_reason,
                    row_number() OVER (ORDER BY comments.id DESC) AS place
                FROM comments
                WHERE comments.owner_id = :owner_id AND comments.id < :before
                    AND (SELECT NOT users.is_deleted FROM users WHERE users.id = :owner_id)
                    AND (:is_moderator OR NOT EXISTS (
                        SELECT FROM blocks WHERE blocker_id = :reader_id AND blocked_id = :owner_id
                    ))
                ORDER BY comments.id DESC LIMIT {MAX_ROWS_READ}
            ) AS c
            WHERE {_IS_LISTED} OR c.place = {MAX_ROWS_READ} ORDER BY c.id DESC LIMIT :rows
        ) AS listed {BY_ID} {AUTHOR.format(**_NAMED)}
    ) AS measured WHERE octets_before < {MAX_PAGE_BYTES} ORDER BY place
""").bindparams(*_READER, *(bindparam(name, type_=BigInteger) for name in ("owner_id", "before")))
_COLUMNS_BEFORE = len(("place", "is_visible", "octets_before"))


def list_of_user(db: Session, reader: models.User, user_id: int, page: KeysetPage) -> tuple[bytes, int | None]:
    """Return the user's comments as a JSON array, newest first, and the id after which the next page begins.

    Comments that are removed or on posts that the reader may not see are left out, and all comments of users whom the
    reader blocked. Raises `UserNotFound`.
    """
    values = {
        "owner_id": possible_key(user_id),
        "before": LARGEST_KEY if page.last_id is None else page.last_id,
        "rows": page.limit + 1,
        "reader_id": reader.id,
        "is_moderator": reader.is_moderator,
    }
    rows = db.execute(_LIST, values).all()
    if not rows and db.scalar(select(models.User.id).where(models.User.id == user_id, ~models.User.is_deleted)) is None:
        raise UserNotFound(user_id)
    parts: list[bytes] = []
    size = len("[]")
    next_after: int | None = None
    for row in rows:
        comment = CommentRow(*row[_COLUMNS_BEFORE:])
        if row.is_visible:
            part = as_json(comment, reader)
            size += len(part) + len(",")
            if len(parts) == page.limit or (parts and size > MAX_PAGE_BYTES):
                break
            parts.append(part)
        next_after = comment.id
    else:
        # If rows were dropped, those before them do not fit, so the loop was left.
        if not rows or rows[-1].place < MAX_ROWS_READ:
            next_after = None
    return b"[%s]" % b",".join(parts), next_after


def change(
    db: Session, caller: models.User, comment_id: int, content: str, versions: frozenset[int] | None
) -> CommentRow:
    """Change the caller's own comment, if it has one of `versions` where these are given.

    The same text leaves `version` and `updated_at` as they are. One statement checks and writes, so of two concurrent
    changes to one version the second is refused. Users whom the text mentions for the first time are notified.
    Raises `CommentNotFound`, also for tombstones, `NotAuthorized`, `PreconditionFailed`.
    """
    names = delivery.mentioned_names(content)
    own = select(Comment.content).where(Comment.id == comment_id, Comment.owner_id == caller.id)
    before = db.scalar(own.with_for_update(key_share=True)) if names else None
    is_changed = Comment.content != content
    changed = (
        update(Comment)
        .where(Comment.id == comment_id, Comment.owner_id == caller.id, Comment.visible_to(caller))
        .where(_has_version(versions))
        .values(
            content=content,
            version=Comment.version + case((is_changed, 1), else_=0),
            updated_at=case((is_changed, func.now()), else_=Comment.updated_at),
        )
        .returning(Comment.id)
    )
    if db.scalar(changed) is None:
        raise _refusal(db, caller, comment_id, is_allowed=lambda owner_id: owner_id == caller.id)
    if added := set(names).difference(delivery.mentioned_names(before or "")):
        delivery.comment_changed(db, comment_id, actor_id=caller.id, names=added)
    return get(db, caller, comment_id)


def remove(db: Session, caller: models.User, comment_id: int, versions: frozenset[int] | None) -> None:
    """Remove the caller's own comment, or, for moderators, any.

    With replies it stays as a tombstone. Raises `CommentNotFound`, also for tombstones, `NotAuthorized`,
    `PreconditionFailed`.
    """
    is_allowed = true() if caller.is_moderator else Comment.owner_id == caller.id
    removable = (Comment.id == comment_id, Comment.visible_to(caller), Comment.is_shown_to(caller), is_allowed)
    owner_id = db.scalar(select(Comment.owner_id).where(*removable, _has_version(versions)))
    if owner_id is None:
        raise _refusal(db, caller, comment_id, is_allowed=lambda owner: caller.is_moderator or owner == caller.id)
    paths = comment_removal.lock_paths(db, [comment_id])
    # Under the lock, because it may have been removed or changed since.
    if not paths or paths[-1].id != comment_id or paths[-1].is_tombstone:
        raise CommentNotFound(comment_id)
    if versions is not None and paths[-1].version not in versions:
        raise PreconditionFailed
    if owner_id != caller.id:
        moderators.lock_moderator(db, caller.id)
        post_id = paths[-1].post_id
        moderators.record(db, caller.id, "delete", user_id=owner_id, post_id=post_id, comment_id=comment_id)
    comment_removal.remove(db, [comment_id], paths)


def _has_version(versions: frozenset[int] | None) -> ColumnElement[bool]:
    return true() if versions is None else Comment.version.in_(versions)


def _refusal(db: Session, caller: models.User, comment_id: int, is_allowed: Callable[[int], bool]) -> DomainError:
    """Return the error for a statement that matched no row.

    The comment is missing, removed, on a post that the caller may not see, another user's, or was changed.
    """
    seen = select(Comment.owner_id).where(
        Comment.id == comment_id, Comment.visible_to(caller), Comment.is_shown_to(caller)
    )
    owner_id = db.scalar(seen)
    if owner_id is None:
        return CommentNotFound(comment_id)
    return PreconditionFailed() if is_allowed(owner_id) else NotAuthorized()
