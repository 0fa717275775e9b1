"""Single-use tokens sent by e-mail. The database stores only their hashes."""

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
    """Issue a token for the account and its current e-mail address.

    It replaces the previous one of this purpose.
    """
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
    """Raise `InvalidToken` unless the token is valid now. Does not use it."""
    if db.scalar(select(MailToken.id).join(User, _opens(purpose, token))) is None:
        raise InvalidToken


def use(db: Session, purpose: MailTokenPurpose, token: str) -> User:
    """Use the token up and return its account, locked.

    Raises `InvalidToken` if the token is wrong, used, replaced or expired, or if the account has another address by now
    or is disabled. The account is locked before its tokens (`app.database.locks`). So the second of two concurrent
    requests with one token finds it used.
    """
    user = db.scalar(select(User).join(MailToken, _opens(purpose, token)).with_for_update(of=User))
    if user is None:
        raise InvalidToken
    used = delete(MailToken).where(MailToken.token_hash == _hash(token)).returning(MailToken.id)
    if db.scalar(used) is None:
        raise InvalidToken
    return user


def end_all(db: Session, user_id: int) -> None:
    """Delete all mailed tokens of the account."""
    db.execute(delete(MailToken).where(MailToken.user_id == user_id))


def _opens(purpose: MailTokenPurpose, token: str) -> ColumnElement[bool]:
    """The condition on `mail_tokens` joined to `users` under which the token is valid."""
    return and_(
        MailToken.token_hash == _hash(token),
        MailToken.purpose == purpose,
        MailToken.expires_at > func.now(),
        MailToken.user_id == User.id,
        MailToken.email == User.email,
        User.is_active,
    )


def _hash(token: str) -> bytes:
    """Hash a token. It has 256 random bits, so a hash without salt and key is enough."""
    return hashlib.sha256(token.encode(errors="replace")).digest()
