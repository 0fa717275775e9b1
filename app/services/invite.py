"""Invites: create, list and delete. `user.sign_up` uses them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.errors import InviteNotFound, NotAuthenticated, NotAuthorized, QuotaExceeded
from app.models.security_event import Event
from app.schemas.invite import DEFAULT_LIFETIME, InviteIn, InviteOut, NewInvite
from app.schemas.page import KeysetPage
from app.security import audit_log, invite_tokens


def create(db: Session, user_id: int, new: InviteIn) -> NewInvite:
    """Create an invite of the caller.

    The lock serializes the creation of invites, so that each counts those before, and waits for a change of the role.
    Raises `NotAuthorized` unless the role may invite (`INVITE_ROLE`), and `QuotaExceeded` if the open invites of the
    account would have more than `INVITES_MAX` uses left.
    """
    account = select(models.User.role).where(models.User.id == user_id, models.User.is_active)
    role = db.scalar(account.with_for_update(key_share=True))
    if role is None:
        raise NotAuthenticated
    settings = get_settings()
    if role not in settings.inviting_roles:
        raise NotAuthorized
    invite = models.Invite
    is_open = (invite.creator_id == user_id, invite.expires_at > func.now())
    left = db.scalar(select(func.coalesce(func.sum(invite.max_uses - invite.uses), 0)).where(*is_open))
    if (left or 0) + new.max_uses > settings.invites_max:
        raise QuotaExceeded(settings.invites_max, "uses of open invites")
    made, token = issue(db, new, user_id)
    audit_log.record(db, Event.INVITE_CREATED, user_id, invite_id=made.id, max_uses=made.max_uses)
    return NewInvite(**InviteOut.model_validate(made).model_dump(), token=token)


def issue(db: Session, new: InviteIn, creator_id: int | None = None) -> tuple[models.Invite, str]:
    """Create an invite of this account, or of the operator; return it and its token. No limit applies."""
    expires_at = new.expires_at or datetime.now(UTC) + DEFAULT_LIFETIME
    return invite_tokens.issue(db, creator_id, new.max_uses, expires_at)


def list_own(db: Session, user_id: int, page: KeysetPage) -> Sequence[models.Invite]:
    """Return the account's invites that have not expired, newest first."""
    own = select(models.Invite).where(models.Invite.creator_id == user_id, models.Invite.expires_at > func.now())
    return db.scalars(page.select(own, models.Invite.id, is_descending=True)).all()


def remove(db: Session, user_id: int, invite_id: int) -> None:
    """Delete one of the account's invites. Raises `InviteNotFound`."""
    own = delete(models.Invite).where(models.Invite.id == invite_id, models.Invite.creator_id == user_id)
    if db.scalar(own.returning(models.Invite.id)) is None:
        raise InviteNotFound(invite_id)
