"""Account administration from the command line, without an access token."""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from app import models
from app.database import deletion_marks
from app.models.security_event import Event
from app.security import audit_log
from app.security.email_addresses import canonical_email

OPERATOR = "operator"


def find(db: Session, name: str) -> models.User | None:
    """Return and lock the account with this e-mail address or username."""
    by_email = models.User.email_canonical == canonical_email(name)
    by_username = func.lower(models.User.username.collate("C")) == name.lower()
    return db.scalar(
        select(models.User)
        # Adopted databases may have addresses without @.
        .where(by_email if "@" in name else or_(by_email, by_username), ~models.User.is_deleted)
        .order_by(by_email.desc())
        .limit(1)
        .with_for_update(key_share=True)
    )


def set_role(db: Session, account: models.User, role: models.Role) -> None:
    """Set the role.

    This may remove the last admin, because an operator can appoint another one.
    """
    if account.role != role:
        account.role = role
        audit_log.record(db, Event.ROLE_CHANGED, account.id, role=role, by=OPERATOR)


def disable(db: Session, account: models.User) -> None:
    """Disable sign-in for the account, and end all its sessions and API keys."""
    if account.is_active:
        account.is_active = False
        audit_log.record(db, Event.ACCOUNT_DISABLED, account.id, by=OPERATOR)
    end_sessions(db, account)


def enable(db: Session, account: models.User) -> None:
    """Enable sign-in for the account."""
    if not account.is_active:
        account.is_active = True
        audit_log.record(db, Event.ACCOUNT_ENABLED, account.id, by=OPERATOR)


def set_password(db: Session, account: models.User, password_hash: str) -> None:
    """Set the password of the account, and end all its sessions and API keys."""
    account.password_hash = password_hash
    audit_log.record(db, Event.PASSWORD_CHANGED, account.id, by=OPERATOR)
    end_sessions(db, account)


def disable_totp(db: Session, account: models.User) -> bool:
    """Disable two-factor authentication; return whether it was enabled.

    This deletes the recovery codes, too.
    """
    is_enabled = models.Totp.user_id == account.id, models.Totp.confirmed_at.is_not(None)
    if db.scalar(delete(models.Totp).where(*is_enabled).returning(models.Totp.user_id)) is None:
        return False
    audit_log.record(db, Event.TOTP_DISABLED, account.id, by=OPERATOR)
    return True


def sessions(db: Session, account: models.User) -> Sequence[models.Session]:
    """Return the account's valid sessions, newest last."""
    is_there = (
        models.Session.user_id == account.id,
        models.Session.expires_at > func.now(),
        ~models.Session.was_revoked(),
    )
    return db.scalars(
        select(models.Session)
        .join(models.User, models.User.id == models.Session.user_id)
        .where(*is_there)
        .order_by(models.Session.id)
    ).all()


def end_sessions(db: Session, account: models.User, ids: Collection[int] | None = None) -> deletion_marks.Ended:
    """End these sessions of the account, or all of them; return which.

    Each ended session has its own event. Too many to list share one event without a count.
    """
    if ids is None:
        db.flush()  # The pending change locks the account before its sessions (`app.database.locks`).
        ended = deletion_marks.end_sessions(db, account.id)
    else:
        chosen_ids = deletion_marks.ids_to_end(db, account.id, ids)
        chosen = (models.Session.user_id == account.id, models.Session.id.in_(chosen_ids))
        ended = deletion_marks.Ended(
            db.scalars(delete(models.Session).where(*chosen).returning(models.Session.id)).all(), is_complete=True
        )
    if not ended.is_complete:
        audit_log.record(db, Event.SESSION_ENDED, account.id, session_count=None, by=OPERATOR)
        return ended
    for session_id in sorted(ended.ids):
        audit_log.record(db, Event.SESSION_ENDED, account.id, session_id=session_id, by=OPERATOR)
    return ended
