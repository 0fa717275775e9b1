"""Showing that one reads the mail of one's account's address."""

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app import models
from app.mail import outbox
from app.models.security_event import Event
from app.security import audit_log, email_tokens


def request(db: Session, user: models.User) -> None:
    """Have a token mailed to the account's address, unless that was verified."""
    if not user.email_verified:
        outbox.post(db, "email_verification", user.email)


def verify(db: Session, token: str) -> None:
    """Note that the account's address is its owner's. Raises `InvalidToken`, also when the address has changed."""
    user = email_tokens.use(db, "email_verification", token)
    db.execute(update(models.User).where(models.User.id == user.id).values(email_verified_at=func.now()))
    audit_log.record(db, Event.EMAIL_VERIFIED, user.id)
