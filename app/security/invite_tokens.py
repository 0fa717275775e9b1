"""Tokens of invites. The database stores only their hashes."""

import hashlib
import secrets
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app.config import get_settings
from app.errors import InvalidInvite
from app.models import Invite, User

TOKEN_BYTES = 16


def issue(db: Session, creator_id: int | None, max_uses: int, expires_at: datetime) -> tuple[Invite, str]:
    """Create an invite; return it and its token."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    values = {"creator_id": creator_id, "token_hash": _hash(token), "max_uses": max_uses, "expires_at": expires_at}
    return db.scalars(insert(Invite).values(values).returning(Invite)).one(), token


def check(db: Session, token: str | None) -> None:
    """Raise `InvalidInvite` unless the invite is open now. Does not use it."""
    if token is None or db.scalar(select(Invite.id).where(_opens(token))) is None:
        raise InvalidInvite


def use(db: Session, token: str | None) -> int:
    """Use the invite in this transaction and return its id.

    The invite stays locked until the transaction ends, and a rollback returns the use. Raises `InvalidInvite`.
    """
    used = update(Invite).where(_opens(token or "")).values(uses=Invite.uses + 1).returning(Invite.id)
    invite_id = db.scalar(used)
    if invite_id is None:
        raise InvalidInvite
    return invite_id


def _opens(token: str) -> ColumnElement[bool]:
    """Return the condition that the token's invite is open.

    Its creator must still be active, not be banned, and have a role that may invite.
    """
    may_invite = and_(User.is_active, ~User.is_banned(), User.role.in_(get_settings().inviting_roles))
    is_of_creator = select(User.id).where(User.id == Invite.creator_id, may_invite).exists()
    return and_(
        Invite.token_hash == _hash(token),
        Invite.uses < Invite.max_uses,
        Invite.expires_at > func.now(),
        or_(Invite.creator_id.is_(None), is_of_creator),
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
