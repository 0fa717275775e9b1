"""Signing in: from a name and a password to a session."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import limits, models, passwords
from app.database import transaction
from app.errors import InvalidCredentials, NotAuthenticated
from app.schemas.types import canonical_email

MOST_USER_AGENT_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Device:
    """Where a sign-in came from, as far as the request tells."""

    user_agent: str | None
    address: str | None


def sign_in(name: str, password: str, device: Device, lifetime: timedelta) -> models.Session:
    """Open a session for whoever has this e-mail address or username, and this password.

    Takes the time of one password hash whether or not there is such a user, and holds no connection meanwhile: call it
    through `passwords.in_hashing_thread`. Raises `InvalidCredentials`; `TooManyTries` before it looks.
    """
    guess = limits.spend_sign_in(canonical_email(name))
    with transaction() as db:
        user = _find(db, name)
    fits, better_hash = passwords.verify(password, user.password_hash if user else None)
    if user is None or not fits or not user.is_active:
        raise InvalidCredentials
    with transaction() as db:
        if better_hash is not None:
            # Only in the place of the hash that was verified: a password changed meanwhile stays changed.
            db.execute(
                update(models.User)
                .where(models.User.id == user.id, models.User.password_hash == user.password_hash)
                .values(password_hash=better_hash)
            )
        session = models.Session(
            user_id=user.id,
            expires_at=func.now() + lifetime,
            user_agent=device.user_agent and device.user_agent.replace("\0", "")[:MOST_USER_AGENT_CHARACTERS],
            address=device.address,
        )
        db.add(session)
    limits.settle_sign_in(guess)
    return session


def current_user(db: Session, user_id: int, session_id: int) -> models.User:
    """The account whose session this is. Raises `NotAuthenticated` unless both are alive."""
    user = db.scalar(
        select(models.User)
        .join(models.Session, models.Session.is_alive())
        .where(models.Session.id == session_id, models.User.id == user_id)
    )
    if user is None:
        raise NotAuthenticated
    return user


def _find(db: Session, name: str) -> models.User | None:
    if "\0" in name:
        return None
    by_email = models.User.email_canonical == canonical_email(name)
    # A username is ASCII and has no @; an e-mail address has one: no name can mean two people.
    by_username = func.lower(models.User.username.collate("C")) == name.lower()
    return db.scalar(select(models.User).where(by_email if "@" in name else by_username))
