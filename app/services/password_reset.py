"""Reset a forgotten password by a mailed token."""

from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from app import models
from app.database import deletion_marks
from app.database.sessions import transaction
from app.mail import outbox
from app.models.security_event import Event
from app.security import attempt_limits, audit_log, email_tokens, passwords


def request(db: Session, email: str) -> None:
    """Have a token mailed to the account with this address, if there is one.

    Whether there is one is asked when the mail is sent: neither answer nor time tells.
    """
    outbox.post(db, "password_reset", email)


def reset(token: str, password: str) -> None:
    """Set the password, and end every session, API key and mailed token of the account. Raises `InvalidToken`.

    The token came by mail, so the address is verified from now on. If it was not before, the account may have been made
    with a stranger's address: the second factor goes too, or the owner of the mailbox could never sign in.
    Hashes the password, and holds no connection meanwhile: call it through `passwords.in_hashing_thread`.
    """
    with transaction() as db:
        email_tokens.check(db, "password_reset", token)  # An invalid token must not cost a password hash.
    password_hash = passwords.hash_password(password)
    with transaction() as db:
        user = email_tokens.use(db, "password_reset", token)
        values: dict[str, object] = {"password_hash": password_hash}
        if not user.email_verified:
            values["email_verified_at"] = func.now()
            _drop_second_factor(db, user.id)
            audit_log.record(db, Event.EMAIL_VERIFIED, user.id)
        db.execute(update(models.User).where(models.User.id == user.id).values(values))
        deletion_marks.end_sessions(db, user.id)
        email_tokens.end_all(db, user.id)
        audit_log.record(db, Event.PASSWORD_RESET, user.id)
        if attempt_limits.is_within(attempt_limits.MAIL_OF_ACCOUNT["password_changed"], str(user.id)):
            outbox.post(db, "password_changed", user.email)
    attempt_limits.know_address(user.email_canonical)


def _drop_second_factor(db: Session, user_id: int) -> None:
    """Delete it with its recovery codes, confirmed or only begun."""
    dropped = delete(models.Totp).where(models.Totp.user_id == user_id).returning(models.Totp.confirmed_at)
    confirmed_at = db.scalar(dropped)
    if confirmed_at is not None:
        audit_log.record(db, Event.TOTP_DISABLED, user_id)
