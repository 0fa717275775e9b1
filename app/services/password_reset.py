"""Password reset: set a new password with a token mailed to the account's address."""

from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from app import models
from app.database import deletion_marks
from app.database.sessions import transaction
from app.mail import outbox
from app.models.security_event import Event
from app.security import attempt_limits, audit_log, email_tokens, passwords


def request(db: Session, email: str) -> None:
    """Queue a mail with a token to the account with this address, if there is one.

    The account is looked up only when the mail is sent. So neither the response nor its time reveals whether the
    account exists.
    """
    outbox.post(db, "password_reset", email)


def reset(token: str, password: str) -> None:
    """Set the password; end all sessions, API keys and mailed tokens of the account.

    The token came by mail, so the address becomes verified. If it was not verified before, the account may have been
    created with a stranger's address. Then the second factor is removed, too: otherwise the owner of the mailbox could
    never sign in. Hashes the password without a database connection: call it through `passwords.in_hashing_thread`.
    Raises `InvalidToken`.
    """
    with transaction() as db:
        email_tokens.check(db, "password_reset", token)  # Refuse an invalid token before the expensive hashing.
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
    """Delete the second factor, confirmed or not, with its recovery codes."""
    dropped = delete(models.Totp).where(models.Totp.user_id == user_id).returning(models.Totp.confirmed_at)
    confirmed_at = db.scalar(dropped)
    if confirmed_at is not None:
        audit_log.record(db, Event.TOTP_DISABLED, user_id)
