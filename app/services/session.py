"""Sessions: refresh, last-seen updates, lists, and revocation. `auth` opens them.

A refresh locks the session's row first, so that of two concurrent refreshes the second sees the effect of the first.
Revocation locks in the order of `app.database.locks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hmac import compare_digest

from sqlalchemy import ColumnElement, Connection, Interval, and_, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.database import deletion_marks
from app.errors import NotAuthenticated, SessionNotFound
from app.models.security_event import Event
from app.schemas.page import KeysetPage
from app.security import audit_log
from app.security.refresh_tokens import RefreshToken

# A client that lost the response can repeat the refresh with the replaced token, and gets the same response.
REFRESH_TOKEN_REUSE_INTERVAL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A refreshed session, its user, and the new refresh token."""

    user_id: int
    session_id: int
    refresh_token: RefreshToken


def refresh(db: Session, token: RefreshToken) -> Refreshed | NotAuthenticated:
    """Replace the session's refresh token with a new one.

    Within `REFRESH_TOKEN_REUSE_INTERVAL`, the token before it returns the same new token again. So a client that lost
    the response goes on, concurrent refreshes all get one token, and there is never a second chain. Any other token of
    the session was used before, so a copy may be stolen: the session ends. That must be committed, so the refusal is
    returned. Raises `NotAuthenticated` where no valid session knows the token.
    """
    found = db.execute(
        select(
            models.Session.id,
            models.Session.user_id,
            models.Session.refresh_hash,
            models.Session.refresh_sealed,
            (models.Session.refreshed_at > func.now() - REFRESH_TOKEN_REUSE_INTERVAL).label("is_in_grace"),
        )
        .join(models.User, models.Session.is_valid())
        .where(models.Session.refresh_family == token.family_hash)
        .with_for_update(of=models.Session)
    ).one_or_none()
    if found is None:
        raise NotAuthenticated
    if compare_digest(token.hash, found.refresh_hash):
        return Refreshed(found.user_id, found.id, _replace(db, found.id, token))
    if found.is_in_grace:
        successor = token.unmask(found.refresh_sealed)
        if compare_digest(successor.hash, found.refresh_hash):
            return Refreshed(found.user_id, found.id, successor)
    db.execute(delete(models.Session).where(models.Session.id == found.id))
    audit_log.record(db, Event.REFRESH_REPLAYED, found.user_id, session_id=found.id)
    return NotAuthenticated()


def _replace(db: Session, session_id: int, token: RefreshToken) -> RefreshToken:
    successor = token.next()
    db.execute(
        update(models.Session)
        .where(models.Session.id == session_id)
        .values(
            refresh_hash=successor.hash,
            refresh_sealed=token.mask(successor),
            refreshed_at=func.now(),
            last_seen_at=func.now(),
            expires_at=models.Session.idle_end(get_settings().session_idle_limit),
        )
    )
    return successor


# SKIP LOCKED: locked rows are being refreshed or revoked. Each worker remembers only its own updates, so the statement
# compares `last_seen_at` itself.
_SEE = text("""
    WITH seen AS (
        SELECT id FROM sessions
        WHERE id = ANY (:session_ids) AND expires_at > now()
            AND last_seen_at NOT BETWEEN now() - :precision AND now()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE sessions SET last_seen_at = now(),
        expires_at = CASE kind WHEN 'login' THEN least(ends_at, now() + :idle_limit) ELSE expires_at END
    FROM seen WHERE sessions.id = seen.id
""").bindparams(
    bindparam("session_ids", type_=ARRAY(BIGINT)),
    bindparam("precision", type_=Interval),
    bindparam("idle_limit", type_=Interval),
)


def see(connection: Connection, session_ids: Sequence[int], precision: timedelta) -> list[None]:
    """Set `last_seen_at` of valid sessions to now, and extend their idle timeout.

    A `last_seen_at` that is no older than `precision` stays. A time in the future is replaced: it is from before the
    database's clock jumped back.
    """
    values = {"session_ids": list(session_ids), "precision": precision, "idle_limit": get_settings().session_idle_limit}
    connection.execute(_SEE, values)
    return [None] * len(session_ids)


def list_own(db: Session, user_id: int, page: KeysetPage) -> Sequence[models.Session]:
    """Return the user's valid sign-in sessions, newest first."""
    own = select(models.Session).join(models.User, models.Session.is_valid()).where(_is_sign_in_of(user_id))
    return db.scalars(page.select(own, models.Session.id, is_descending=True)).all()


def sign_out(db: Session, user_id: int, session_id: int) -> None:
    """End the caller's session.

    Raises `NotAuthenticated` if a concurrent request has ended it.
    """
    if not _end(db, user_id, session_id):
        raise NotAuthenticated
    audit_log.record(db, Event.SIGNED_OUT, user_id, session_id=session_id)


def end(db: Session, user_id: int, session_id: int) -> None:
    """End one of the user's sign-in sessions. Raises `SessionNotFound`."""
    if not _end(db, user_id, session_id):
        raise SessionNotFound(session_id)
    audit_log.record(db, Event.SESSION_ENDED, user_id, session_id=session_id)


def end_others(db: Session, user_id: int, session_id: int) -> None:
    """End all of the user's sign-in sessions except this one."""
    audit_log.lock_account(db, user_id)
    ended = deletion_marks.end_sessions(db, user_id, kind="login", keeping=session_id)
    if ended.ids:
        audit_log.record(db, Event.SESSION_ENDED, user_id, session_count=ended.session_count)


def _is_sign_in_of(user_id: int) -> ColumnElement[bool]:
    return and_(models.Session.user_id == user_id, models.Session.kind == "login")


def _end(db: Session, user_id: int, session_id: int) -> bool:
    """End the sign-in session; return whether it existed."""
    audit_log.lock_account(db, user_id)
    ids = deletion_marks.ids_to_end(db, user_id, [session_id])
    is_theirs = (_is_sign_in_of(user_id), models.Session.id.in_(ids))
    is_there = (models.Session.user_id == models.User.id, ~models.Session.was_revoked())
    ended = delete(models.Session).where(*is_theirs, *is_there).returning(models.Session.id)
    return bool(db.scalars(ended).all())
