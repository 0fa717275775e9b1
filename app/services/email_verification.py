"""E-mail verification: prove access to the mailbox of the account's address."""

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app import models
from app.mail import outbox
from app.models.security_event import Event
from app.security import audit_log, email_tokens


def request(db: Session, user: models.User) -> None:
    """Queue a mail with a token to the account's address, unless it is verified."""
    if not user.email_verified:
        outbox.post(db, "email_verification", user.email)


def verify(db: Session, token: str) -> None:
    """Mark the account's address as verified.

    Raises `InvalidToken`, also when the address has changed since the mail.
    """
    user = email_tokens.use(db, "email_verification", token)
    db.execute(update(models.User).where(models.User.id == user.id).values(email_verified_at=func.now()))
    audit_log.record(db, Event.EMAIL_VERIFIED, user.id)
