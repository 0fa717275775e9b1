"""Tokens that travel by mail: made, kept as their hashes, and used once."""

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import InvalidToken
from app.models import MailToken, MailTokenPurpose, User

TOKEN_BYTES = 32
LIFETIMES: dict[MailTokenPurpose, timedelta] = {
    "password_reset": timedelta(hours=1),
    "email_verification": timedelta(days=1),
}


def issue(db: Session, user: User, purpose: MailTokenPurpose) -> str:
    """A token for the account and its e-mail address as it is now; the one before it for this purpose is void."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    values = {
        "token_hash": _hash(token),
        "email": user.email,
        "expires_at": func.now() + LIFETIMES[purpose],
    }
    db.execute(
        insert(MailToken)
        .values(user_id=user.id, purpose=purpose, **values)
        .on_conflict_do_update(index_elements=["user_id", "purpose"], set_=values)
    )
    return token


def check(db: Session, purpose: MailTokenPurpose, token: str) -> None:
    """Raises `InvalidToken` unless the token could be used now."""
    if db.scalar(select(MailToken.id).join(User, _opens(purpose, token))) is None:
        raise InvalidToken


def use(db: Session, purpose: MailTokenPurpose, token: str) -> User:
    """The account, locked, whose token this is; its tokens for this purpose end with the transaction.

    Raises `InvalidToken` if it is wrong, used, replaced or expired, if the account has another address by now, or is
    disabled. The account is locked before its tokens, as by everybody; of two who bring a token, the second then finds
    it gone.
    """
    user = db.scalar(select(User).join(MailToken, _opens(purpose, token)).with_for_update(of=User))
    if user is None:
        raise InvalidToken
    used = delete(MailToken).where(MailToken.token_hash == _hash(token)).returning(MailToken.id)
    if db.scalar(used) is None:
        raise InvalidToken
    return user


def end_all(db: Session, user_id: int) -> None:
    """Void every token that was mailed for the account."""
    db.execute(delete(MailToken).where(MailToken.user_id == user_id))


def _opens(purpose: MailTokenPurpose, token: str) -> ColumnElement[bool]:
    """The condition, on `mail_tokens` joined to `users`, under which the token is accepted."""
    return and_(
        MailToken.token_hash == _hash(token),
        MailToken.purpose == purpose,
        MailToken.expires_at > func.now(),
        MailToken.user_id == User.id,
        MailToken.email == User.email,
        User.is_active,
    )


def _hash(token: str) -> bytes:
    """A plain hash is enough for what has 256 random bits."""
    return hashlib.sha256(token.encode(errors="replace")).digest()
