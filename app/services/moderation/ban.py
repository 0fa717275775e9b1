"""Ban accounts. A ban ends sessions and API keys, and `auth.sign_in` refuses new ones until it ends."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.database import deletion_marks, notification_delivery
from app.errors import NotAuthorized, UserNotFound
from app.models import User
from app.models.security_event import Event
from app.schemas.moderation import BanIn, BanState
from app.security import audit_log, moderators


def ban(db: Session, moderator: User | None, user_id: int, wanted: BanIn, *, report_id: int | None = None) -> BanState:
    """Ban the account, or replace the reason and the end of its ban. The operator is no `moderator`.

    The lock of the account makes its sign-ins and its new API keys wait, and the other way round. So no session remains
    that was opened meanwhile. Raises `UserNotFound`, and `NotAuthorized` unless the moderator's role is above.
    """
    lock_account(db, moderator, user_id)
    values = {"ban_reason": wanted.reason, "banned_until": wanted.until}
    db.execute(update(User).where(User.id == user_id).values(values))
    deletion_marks.end_sessions(db, user_id)
    ends_at = None if wanted.until is None else wanted.until.isoformat()
    audit_log.record(db, Event.ACCOUNT_BANNED, user_id, until=ends_at)
    notification_delivery.moderated(db, user_id)
    moderator_id = None if moderator is None else moderator.id
    moderators.record(
        db, moderator_id, "ban", user_id=user_id, report_id=report_id, reason=wanted.reason, until=wanted.until
    )
    return BanState(user_id=user_id, banned=True, until=wanted.until, reason=wanted.reason)


def unban(db: Session, moderator: User | None, user_id: int) -> BanState:
    """End the ban of the account. Idempotent. Raises as `ban`."""
    if lock_account(db, moderator, user_id):
        db.execute(update(User).where(User.id == user_id).values(ban_reason=None, banned_until=None))
        audit_log.record(db, Event.ACCOUNT_UNBANNED, user_id)
        notification_delivery.moderated(db, user_id)
        moderators.record(db, None if moderator is None else moderator.id, "unban", user_id=user_id)
    return BanState(user_id=user_id, banned=False, until=None, reason=None)


def lock_account(db: Session, moderator: User | None, user_id: int) -> bool:
    """Lock the account, then the moderator's. Return whether the account is banned. Raises as `ban`."""
    account = select(User.role, User.is_banned()).where(User.id == user_id, ~User.is_deleted)
    found = db.execute(account.with_for_update(key_share=True)).one_or_none()
    if found is None:
        raise UserNotFound(user_id)
    role, is_banned = found
    if moderator is not None and not moderators.is_above(moderators.lock_moderator(db, moderator.id), role):
        raise NotAuthorized
    return bool(is_banned)
