"""Sending mails: each is claimed, written, handed to the mail server, and forgotten; what fails is tried again.

At least once: whoever crashes between the mail server's yes and the end sends it a second time. No row stays locked
while the mail server is talked to.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app import audit, context, limits, mail_tokens
from app.audit import Event
from app.config import get_settings
from app.database import transaction
from app.errors import Unavailable
from app.models import MailKind, MailTokenPurpose, OutgoingMail, User
from app.schemas.types import canonical_email
from app.smtp import NeverSent, NotSent, Transport

logger = logging.getLogger("app.mail")

# Longer than talking to the slowest mail server takes; so long a mail waits whose sender crashed.
LEASE = timedelta(minutes=5)
# The pause doubles with each attempt: eight take half an hour.
FIRST_PAUSE = timedelta(seconds=15)
MOST_ATTEMPTS = 8
# What could not be sent for so long, because nothing was to be sent, would only puzzle people.
SENT_WITHIN = timedelta(days=1)

# Subject and text of each kind. Tokens are behind the #, which browsers send to no server.
WORDS: dict[MailKind, tuple[str, str]] = {
    "password_reset": (
        "Reset your password",
        "Somebody, perhaps you, wants to reset the password of your account at {site}.\n\n"
        "Choose a new password within an hour:\n{site}/password-reset#token={token}\n\n"
        "The link works once, and only the newest one works. If it was not you, do nothing: nothing has changed.\n",
    ),
    "email_verification": (
        "Confirm your e-mail address",
        "This address was given for an account at {site}. If it was you, confirm it within a day:\n"
        "{site}/email-verification#token={token}\n\n"
        "The link works once, and only the newest one works. If it was not you, do nothing.\n",
    ),
    "password_changed": (
        "Your password was changed",
        "The password of your account at {site} was changed, which ended its other sign-ins.\n\n"
        "If it was not you, reset it now:\n{site}/password-reset\n",
    ),
    "email_changed": (
        "Your e-mail address was changed",
        "Your account at {site} has another e-mail address now, and this one no longer signs in there.\n\n"
        "If it was not you, tell the people who run {site} at once.\n",
    ),
}


def send_next(transport: Transport) -> bool:
    """Send the mail that has been due for longest, or put it off; whether there was one."""
    with transaction() as db:
        mail = _claim(db)
    if mail is None:
        return False
    failure: NotSent | None = None
    try:
        message = _write(mail)
        if message is not None:
            transport.send(message, str(message["To"]))
    except NotSent as error:
        failure = error
    with transaction() as db:
        _settle(db, mail, failure)
    return True


def _claim(db: Session) -> OutgoingMail | None:
    """Take a mail that is due, so that nobody else does until the lease ends."""
    due = (
        select(OutgoingMail.id)
        .where(OutgoingMail.due_at <= func.now(), OutgoingMail.created_at > func.now() - SENT_WITHIN)
        .order_by(OutgoingMail.due_at, OutgoingMail.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return db.scalar(
        update(OutgoingMail)
        .where(OutgoingMail.id == due.scalar_subquery())
        .values(due_at=func.now() + LEASE, attempt_count=OutgoingMail.attempt_count + 1)
        .returning(OutgoingMail)
    )


def _settle(db: Session, mail: OutgoingMail, failure: NotSent | None) -> None:
    if failure is None:
        db.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
        return
    is_given_up = isinstance(failure, NeverSent) or mail.attempt_count >= MOST_ATTEMPTS
    pause = FIRST_PAUSE * 2 ** (mail.attempt_count - 1)
    db.execute(
        update(OutgoingMail)
        # Unless the lease has ended, and somebody else tries by now.
        .where(OutgoingMail.id == mail.id, OutgoingMail.attempt_count == mail.attempt_count)
        .values(due_at="infinity" if is_given_up else func.now() + pause, failure=str(failure))
    )
    logger.log(
        logging.ERROR if is_given_up else logging.WARNING,
        "mail %d (%s) %s after attempt %d: %s",
        mail.id, mail.kind, "is given up" if is_given_up else "was not sent", mail.attempt_count, failure,
    )  # fmt: skip


def _write(mail: OutgoingMail) -> EmailMessage | None:
    """The mail as it is sent, or None where there is no longer anybody to send it to. Raises `NeverSent`."""
    if mail.attempt_count > MOST_ATTEMPTS:
        raise NeverSent("whoever tried crashed")
    # Counted here, where no client waits, and before the account is looked for: what is dropped tells nothing.
    address = canonical_email(mail.address)
    if mail.attempt_count == 1 and not _is_within(limits.MAIL_TO_ADDRESS[mail.kind], address):
        return None
    match mail.kind:
        case "password_changed" | "email_changed":
            return _message(mail.kind, mail.address)
        case "password_reset" | "email_verification":
            with _caused_by(mail), transaction() as db:
                return _with_token(db, mail, mail.kind)


def _is_within(limit: limits.Limit, key: str) -> bool:
    """As `limits.is_within`, tried once more: the first try may meet a connection that the server has closed.

    Without it the mail would wait until its lease ends.
    """
    try:
        return limits.is_within(limit, key)
    except Unavailable:
        return limits.is_within(limit, key)


def _with_token(db: Session, mail: OutgoingMail, purpose: MailTokenPurpose) -> EmailMessage | None:
    """To the account's address as it is stored: what was typed may only look like it."""
    user = db.scalar(
        select(User)
        .where(User.email_canonical == canonical_email(mail.address), User.is_active)
        .with_for_update(read=True, key_share=True)
    )
    if user is None or (purpose == "email_verification" and user.email_verified):
        return None
    # Not for verified addresses: else strangers could use up the limit of an account's owner.
    if (
        mail.attempt_count == 1
        and not user.email_verified
        and not _is_within(limits.MAIL_TO_UNVERIFIED_MAILBOX, f"{purpose} {_mailbox(user.email_canonical)}")
    ):
        return None
    if purpose == "password_reset" and mail.attempt_count == 1:
        audit.record(db, Event.PASSWORD_RESET_REQUESTED, user.id)
    return _message(purpose, user.email, mail_tokens.issue(db, user, purpose))


def _mailbox(address: str) -> str:
    """The address without what is behind a `+`, which most mail servers deliver to the same mailbox."""
    local, at, domain = address.rpartition("@")
    return local.partition("+")[0] + at + domain


def _message(kind: MailKind, address: str, token: str = "") -> EmailMessage:
    settings = get_settings()
    subject, text = WORDS[kind]
    message = EmailMessage()
    message["From"] = settings.mail_from
    try:
        message["To"] = address
    except ValueError:
        raise NeverSent("the address has more than one line") from None
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{secrets.token_hex(16)}@{settings.mail_from.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no "out of office" comes back.
    message.set_content(text.format(site=settings.site, token=token))
    return message


@contextmanager
def _caused_by(mail: OutgoingMail) -> Iterator[None]:
    """What is told meanwhile is told of the request that wanted the mail."""
    request_id = context.request_id.set(mail.request_id)
    address = context.client_address.set(mail.client_address)
    try:
        yield
    finally:
        context.request_id.reset(request_id)
        context.client_address.reset(address)
