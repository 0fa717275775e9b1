"""Marks for deletions with more rows than one transaction should remove.

A marked row does not exist for any later request. `services.deletion` removes the rows afterwards, in batches.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app import models
from app.models.session import FIRST_ADOPTED, adopted_session_id, sessionless_session_id

# Maximum rows that a request removes itself. It takes 0.1 s, for which other requests may wait (ADR 0021).
MAX_ROWS_AT_ONCE = 1_000

# LATERAL with its own LIMIT, so that PostgreSQL looks votes up post by post with any statistics.
_HAS_MORE_ROWS = text("""
    SELECT count(*) > :rows FROM (
        (SELECT FROM votes WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM posts WHERE owner_id = :user_id LIMIT :rows + 1)
        UNION ALL (
            SELECT FROM (SELECT id FROM posts WHERE owner_id = :user_id LIMIT :rows + 1) AS own
            CROSS JOIN LATERAL (SELECT FROM votes WHERE post_id = own.id LIMIT :rows + 1) AS received LIMIT :rows + 1
        )
        UNION ALL (
            SELECT FROM (SELECT id FROM posts WHERE owner_id = :user_id LIMIT :rows + 1) AS own
            CROSS JOIN LATERAL (SELECT FROM bookmarks WHERE post_id = own.id LIMIT :rows + 1) AS saved LIMIT :rows + 1
        )
        UNION ALL (
            SELECT FROM (SELECT id FROM posts WHERE owner_id = :user_id LIMIT :rows + 1) AS own
            CROSS JOIN LATERAL (SELECT FROM post_mutes WHERE post_id = own.id LIMIT :rows + 1) AS muted LIMIT :rows + 1
        )
        UNION ALL (SELECT FROM bookmarks WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM post_mutes WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM notifications WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM notifications WHERE actor_id = :user_id AND kind = 'follow' LIMIT :rows + 1)
        UNION ALL (SELECT FROM follows WHERE follower_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM follows WHERE followee_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM blocks WHERE blocker_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM blocks WHERE blocked_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM sessions WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM security_events WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM idempotency_keys WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM tag_follows WHERE user_id = :user_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM reports WHERE reporter_id = :user_id LIMIT :rows + 1)
    ) AS owned
""")

_HAS_COMMENTS = text("""
    SELECT EXISTS (SELECT FROM comments WHERE owner_id = :user_id)
        OR EXISTS (SELECT FROM comment_votes WHERE user_id = :user_id)
        OR EXISTS (
            SELECT FROM posts CROSS JOIN LATERAL (SELECT FROM comments WHERE post_id = posts.id LIMIT 1) AS received
            WHERE posts.owner_id = :user_id
        )
""")
_POST_HAS_MORE_ROWS = text("""
    SELECT count(*) > :rows FROM (
        (SELECT FROM votes WHERE post_id = :post_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM bookmarks WHERE post_id = :post_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM post_mutes WHERE post_id = :post_id LIMIT :rows + 1)
        UNION ALL (SELECT FROM comments WHERE post_id = :post_id LIMIT :rows + 1)
        UNION ALL (
            SELECT FROM (SELECT id FROM comments WHERE post_id = :post_id LIMIT :rows + 1) AS received
            CROSS JOIN LATERAL (SELECT FROM comment_votes WHERE comment_id = received.id LIMIT :rows + 1) AS votes
            LIMIT :rows + 1
        )
    ) AS received
""")


class Ended(NamedTuple):
    """The ids of the removed sessions.

    If they are not all, the rest is marked as ended.
    """

    ids: Sequence[int]
    is_complete: bool

    @property
    def session_count(self) -> int | None:
        """How many sessions ended; None if there were too many to count."""
        return len(self.ids) if self.is_complete else None


def is_large(db: Session, user_id: int) -> bool:
    """Return whether the account has more rows than one transaction should remove.

    Reads a bounded number of rows.
    """
    return bool(db.scalar(_HAS_MORE_ROWS, {"user_id": user_id, "rows": MAX_ROWS_AT_ONCE}))


def has_comments(db: Session, user_id: int) -> bool:
    """Return whether the account wrote, received or voted for comments. Its posts must be few.

    What remains of them depends on comments of others, which one transaction should not lock for many posts.
    """
    return bool(db.scalar(_HAS_COMMENTS, {"user_id": user_id}))


def is_large_post(db: Session, post_id: int) -> bool:
    """Return whether the post has more votes, bookmarks, mutes and comments than one transaction should remove.

    Reads a bounded number of rows.
    """
    return bool(db.scalar(_POST_HAS_MORE_ROWS, {"post_id": post_id, "rows": MAX_ROWS_AT_ONCE}))


def mark_account(db: Session, user_id: int) -> None:
    """Mark the account as deleted, with its posts and sessions.

    Its names become available. No sign-up can use a placeholder, because an address has an `@`, and a username no
    colon.
    """
    placeholder = f"deleted:{user_id}"
    db.execute(
        update(models.User)
        .where(models.User.id == user_id)
        .values(
            is_deleted=True,
            is_active=False,
            role="user",
            email=placeholder,
            email_canonical=placeholder,
            email_verified_at=None,
            username=placeholder,
            password_hash="",
        )
    )
    db.execute(delete(models.MailToken).where(models.MailToken.user_id == user_id))
    _request(db, user_id)


def mark_post(db: Session, post_id: int) -> None:
    """Mark the post as deleted by moving it to a deleted account.

    The post must be locked.
    """
    placeholder = f"deleted:post:{post_id}"
    heir = insert(models.User).values(
        is_deleted=True, is_active=False, email=placeholder, email_canonical=placeholder, password_hash=""
    )
    heir_id = db.scalars(heir.returning(models.User.id)).one()
    # Unpublish it, so that it leaves the partial indexes of lists.
    db.execute(update(models.Post).where(models.Post.id == post_id).values(owner_id=heir_id, published=False))
    _request(db, heir_id)


def end_sessions(
    db: Session, user_id: int, *, kind: models.SessionKind | None = None, keeping: int | None = None
) -> Ended:
    """End the account's sessions of one kind, or of every kind, except one to keep.

    The account must be locked, at least against its deletion. If two requests each keep a different session, both
    sessions end. Tokens without a session id share one session. It is never kept, because one of them may be stolen.
    """
    if keeping == sessionless_session_id(user_id):
        keeping = None
    ended = [models.Session.user_id == user_id]
    if keeping is not None:
        ended.append(models.Session.id != keeping)
    if kind is not None:
        ended.append(models.Session.kind == kind)
    if kind != "api_key":
        _end_sessionless_tokens(db, user_id)
    ids = db.scalars(select(models.Session.id).where(*ended).limit(MAX_ROWS_AT_ONCE + 1)).all()
    is_complete = len(ids) <= MAX_ROWS_AT_ONCE
    if not is_complete:
        _mark_sessions(db, user_id, kind, keeping)
        # The ids in the marks do not cover these two.
        ids = [*ids, adopted_session_id(user_id), sessionless_session_id(user_id)]
    removed = delete(models.Session).where(*ended, models.Session.id.in_(ids)).returning(models.Session.id)
    return Ended(db.scalars(removed).all(), is_complete)


def ids_to_end(db: Session, user_id: int, ids: Collection[int]) -> Collection[int]:
    """Return the sessions to delete so that these end.

    Two sessions stand for tokens without a session id. If one of them is given, end both and refuse such tokens.
    """
    sessionless = {adopted_session_id(user_id), sessionless_session_id(user_id)}
    if sessionless.isdisjoint(ids):
        return ids
    _end_sessionless_tokens(db, user_id)
    return sessionless.union(ids)


def _end_sessionless_tokens(db: Session, user_id: int) -> None:
    ended = update(models.User).where(models.User.id == user_id)
    ended = ended.values(sessionless_tokens_ended_at=func.clock_timestamp())
    db.execute(ended.execution_options(synchronize_session=False))


def _mark_sessions(db: Session, user_id: int, kind: models.SessionKind | None, keeping: int | None) -> None:
    # Sessions are created with the account locked, so later ones of this account get greater ids than this one.
    last_id = select(func.max(models.Session.id)).where(models.Session.id < FIRST_ADOPTED).scalar_subquery()
    # A session that another request has marked in the meantime stays ended.
    kept = (
        select(models.Session.id)
        .where(models.Session.id == keeping, models.Session.user_id == models.User.id, ~models.Session.was_revoked())
        .correlate(models.User)
        .scalar_subquery()
    )
    values: dict[str, ColumnElement[int]] = {"kept_session_id": func.coalesce(kept, literal_column("0"))}
    if kind != "api_key":
        values["last_ended_login_id"] = last_id
    if kind != "login":
        values["last_ended_api_key_id"] = last_id
    db.execute(update(models.User).where(models.User.id == user_id).values(values))
    _request(db, user_id)


def _request(db: Session, user_id: int) -> None:
    """Request that `services.deletion` processes the account.

    Update an existing request, because its row may be about to be removed. The row lock makes one of the two wait.
    """
    requested = upsert(models.Deletion).values(user_id=user_id)
    db.execute(requested.on_conflict_do_update(index_elements=["user_id"], set_={"requested_at": func.now()}))
