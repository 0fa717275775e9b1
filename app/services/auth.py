"""Sign-in: check the credentials and open a session."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.database.sessions import transaction
from app.errors import Banned, InvalidCredentials, NotAuthenticated, OtpRequired
from app.models.security_event import Event
from app.security import attempt_limits, audit_log, passwords
from app.security.email_addresses import canonical_email, is_placeholder_email
from app.security.refresh_tokens import RefreshToken

MAX_USER_AGENT_CHARACTERS = 300
# Maximum verifications of one password: another follows when its hash was replaced during the one before.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Device:
    """The client of a sign-in, as far as the request identifies it."""

    user_agent: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class SignIn:
    """A new session and its refresh token, which is None for a session in a cookie."""

    user_id: int
    session_id: int
    refresh_token: RefreshToken | None


# Takes a user id. Raises unless the user may sign in. The returned function runs in the transaction that opens the
# session.
SecondFactor = Callable[[int], Callable[[Session], None]]


def sign_in(name: str, password: str, device: Device, second_factor: SecondFactor, *, refreshes: bool) -> SignIn:
    """Open a session for an e-mail address or username, and a password.

    It takes the time of one password hash whether or not the account exists. It holds no database connection while
    hashing, so call it through `passwords.in_hashing_thread`. Raises `InvalidCredentials`, the errors of
    `second_factor`, `Banned` only after both, and `TooManyTries` before the password is verified.
    """
    with transaction() as db:
        named = _find(db, name)
    guess = attempt_limits.spend_sign_in(canonical_email(name), named.id if named else None)
    for _ in range(MAX_ATTEMPTS):
        user, better_hash = _verify(name, password)
        try:
            use_second_factor = second_factor(user.id)
        except OtpRequired:
            attempt_limits.give_back_sign_in(guess)
            raise
        with transaction() as db:
            found = _lock_unchanged(db, user, better_hash)
            if found is None:
                continue
            if found.is_banned:
                audit_log.record_apart(Event.SIGN_IN_FAILED, user.id)
                raise Banned(found.ban_reason, found.banned_until)
            use_second_factor(db)
            signed_in = open_session(db, user, device, refreshes=refreshes)
        attempt_limits.settle_sign_in(guess)
        return signed_in
    raise InvalidCredentials


def current_user(db: Session, user_id: int, session_id: int) -> models.User:
    """Return the account of a session.

    Raises `NotAuthenticated` unless both are valid. With the session of an API key, the account has neither the
    moderator's nor the admin's rights.
    """
    found = db.execute(
        select(models.User, models.Session.kind)
        .join(models.Session, models.Session.is_valid())
        .where(models.Session.id == session_id, models.User.id == user_id)
    ).one_or_none()
    if found is None:
        raise NotAuthenticated
    user, kind = found
    user.acts_through_key = kind != "login"
    return user


def _verify(name: str, password: str) -> tuple[models.User, str | None]:
    """Return the account, and a new password hash if the stored one is outdated.

    Raises `InvalidCredentials` for every reason, so that the error does not reveal which accounts exist.
    """
    with transaction() as db:
        user = _find(db, name)
    fits, better_hash = passwords.verify(password, user.password_hash if user else None)
    if user is None or not fits or not user.is_active:
        audit_log.record_apart(Event.SIGN_IN_FAILED, user.id if user else None)
        raise InvalidCredentials
    return user, better_hash


def _lock_unchanged(db: Session, user: models.User, better_hash: str | None) -> Row[*tuple[Any, ...]] | None:
    """Lock the account if it still has the verified hash, and return its ban; None if it has not.

    Without the lock, a concurrent password change, ban or disabling of the account would end all sessions except the
    new one.
    """
    of_user = models.User.id == user.id, models.User.password_hash == user.password_hash, models.User.is_active
    ban = models.User.is_banned().label("is_banned"), models.User.ban_reason, models.User.banned_until
    if better_hash is not None:
        replace = update(models.User).where(*of_user).values(password_hash=better_hash).returning(*ban)
        return db.execute(replace).one_or_none()
    # The lock serializes sign-ins of one account, so that each counts the sessions of those before.
    return db.execute(select(*ban).where(*of_user).with_for_update(key_share=True)).one_or_none()


def open_session(db: Session, user: models.User, device: Device, *, refreshes: bool) -> SignIn:
    """Open a session for an account whose owner has proved to be it, or that is new in this transaction."""
    settings = get_settings()
    refresh_token = RefreshToken.first() if refreshes else None
    session = models.Session(
        user_id=user.id,
        expires_at=func.now() + min(settings.session_lifetime, settings.session_idle_limit),
        ends_at=func.now() + settings.session_lifetime,
        user_agent=device.user_agent and device.user_agent.replace("\0", "")[:MAX_USER_AGENT_CHARACTERS],
        address=device.address,
        refresh_family=refresh_token and refresh_token.family_hash,
        refresh_hash=refresh_token and refresh_token.hash,
    )
    db.add(session)
    db.flush()
    audit_log.record(db, Event.SIGNED_IN, user.id, session_id=session.id)
    _end_least_recently_used(db, session)
    return SignIn(user.id, session.id, refresh_token)


def _end_least_recently_used(db: Session, opened: models.Session) -> None:
    """End one other session of the account if the new one exceeds `MAX_SESSIONS`.

    Expired sessions go first, then sessions of the same client program, then the least recently used. So a script that
    signs in at each run ends its own sessions, and not its owner's browser session. Each sign-in ends at most one:
    an account that is already past the maximum keeps its number of sessions.
    """
    first = (
        select(models.Session.id, func.count().over().label("others"))
        .where(models.Session.user_id == opened.user_id, models.Session.kind == "login", models.Session.id != opened.id)
        .order_by(
            models.Session.expires_at > func.now(),
            models.Session.user_agent.is_distinct_from(opened.user_agent),
            models.Session.last_seen_at,
            models.Session.id,
        )
        .limit(1)
        .subquery()
    )
    past = select(first.c.id).where(first.c.others >= get_settings().max_sessions)
    ended = db.scalar(delete(models.Session).where(models.Session.id.in_(past)).returning(models.Session.id))
    if ended is not None:
        audit_log.record(db, Event.SESSION_ENDED, opened.user_id, session_id=ended, reason="max_sessions")


def _find(db: Session, name: str) -> models.User | None:
    """Return the account with this e-mail address or username.

    A username has no @. A new address has one, but an adopted database may hold addresses without. If an address and a
    username are equal, the account with the address wins: it is older, because such addresses cannot sign up any more.
    """
    if "\0" in name or is_placeholder_email(name):
        return None
    by_address = models.User.email_canonical == canonical_email(name)
    is_theirs = by_address
    if "@" not in name:
        is_theirs = or_(by_address, func.lower(models.User.username.collate("C")) == name.lower())
    found = select(models.User).where(is_theirs, ~models.User.is_deleted)
    return db.scalar(found.order_by(by_address.desc()).limit(1))
