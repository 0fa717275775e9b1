"""A new password for somebody who has forgotten theirs, and reads the mail of their account's address."""

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app import audit, limits, mail_tokens, models, outbox, passwords
from app.audit import Event
from app.database import transaction


def request(db: Session, email: str) -> None:
    """Have a token mailed to the account with this address, if there is one.

    Whether there is one is asked when the mail is sent: neither answer nor time tells.
    """
    outbox.post(db, "password_reset", email)


def reset(token: str, password: str) -> None:
    """Set the password, and end every session, API key and mailed token of the account. Raises `InvalidToken`.

    Hashes the password, and holds no connection meanwhile: call it through `passwords.in_hashing_thread`.
    """
    with transaction() as db:
        mail_tokens.check(db, "password_reset", token)  # Nobody makes us hash for a token that they made up.
    password_hash = passwords.hash_password(password)
    with transaction() as db:
        user = mail_tokens.use(db, "password_reset", token)
        db.execute(update(models.User).where(models.User.id == user.id).values(password_hash=password_hash))
        db.execute(delete(models.Session).where(models.Session.user_id == user.id))
        mail_tokens.end_all(db, user.id)
        audit.record(db, Event.PASSWORD_RESET, user.id)
        outbox.post(db, "password_changed", user.email)
    limits.know_address(user.email_canonical)
