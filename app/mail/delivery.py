"""Mail delivery: claim a mail, send it by SMTP, delete its row or retry later.

Delivery is at least once: a crash after the mail server accepted a mail causes a second delivery. No row stays locked
during the SMTP dialogue.
"""

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.message import EmailMessage

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database.sessions import transaction
from app.errors import DomainError, Unavailable
from app.mail.outbox import SENT_WITHIN
from app.mail.smtp import NeverSent, NotSent, Transport, transport
from app.mail.templates import compose
from app.models import MailTokenPurpose, OutgoingMail, User
from app.models.security_event import Event
from app.observability import request_context
from app.security import attempt_limits, audit_log, email_tokens
from app.security.email_addresses import canonical_email

logger = logging.getLogger("app.mail")

# Longer than the slowest SMTP dialogue. A mail whose sender crashed is retried after this time.
LEASE = timedelta(minutes=5)
# The pause doubles after each attempt: 8 attempts take half an hour.
FIRST_PAUSE = timedelta(seconds=15)
MAX_ATTEMPTS = 8


def send_next(transport: Transport) -> bool:
    """Send the mail with the oldest due time, or schedule a retry.

    Return whether a mail was due.
    """
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
    """Claim a due mail. Other processes skip it until the lease ends."""
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
    is_given_up = isinstance(failure, NeverSent) or mail.attempt_count >= MAX_ATTEMPTS
    pause = FIRST_PAUSE * 2 ** (mail.attempt_count - 1)
    db.execute(
        update(OutgoingMail)
        # The attempt count differs if the lease ended and another process claimed the mail.
        .where(OutgoingMail.id == mail.id, OutgoingMail.attempt_count == mail.attempt_count)
        .values(due_at="infinity" if is_given_up else func.now() + pause, failure=str(failure))
    )
    logger.log(
        logging.ERROR if is_given_up else logging.WARNING,
        "%s: mail=%d kind=%s attempt=%d reason=%r",
        "mail given up" if is_given_up else "mail not sent", mail.id, mail.kind, mail.attempt_count, str(failure),
    )  # fmt: skip


def _write(mail: OutgoingMail) -> EmailMessage | None:
    """Compose the mail, or return None if there is no account to send it to.

    Raises `NeverSent`.
    """
    if mail.attempt_count > MAX_ATTEMPTS:
        raise NeverSent("every sender crashed")
    # Counted here, where no client waits, and before the account lookup, so that a dropped mail reveals nothing.
    address = canonical_email(mail.address)
    if mail.attempt_count == 1 and not _is_within(attempt_limits.MAIL_TO_ADDRESS[mail.kind], address):
        return None
    match mail.kind:
        case "password_changed" | "email_changed" | "webhook_disabled":
            return compose(mail.kind, mail.address)
        case "password_reset" | "email_verification":
            with _caused_by(mail), transaction() as db:
                return _with_token(db, mail, mail.kind)


def _is_within(limit: attempt_limits.Limit, key: str) -> bool:
    """Call `attempt_limits.is_within`; retry once on a closed connection.

    The server may have closed the pooled connection. Without the retry, the mail would wait until its lease ends.
    """
    try:
        return attempt_limits.is_within(limit, key)
    except Unavailable:
        return attempt_limits.is_within(limit, key)


def _with_token(db: Session, mail: OutgoingMail, purpose: MailTokenPurpose) -> EmailMessage | None:
    """Compose a mail with a token for the account's stored address.

    The requested one may differ in form.
    """
    user = db.scalar(
        select(User)
        .where(User.email_canonical == canonical_email(mail.address), User.is_active)
        .with_for_update(read=True, key_share=True)
    )
    if user is None or (purpose == "email_verification" and user.email_verified):
        return None
    # Not for verified addresses, or strangers could use up the limit of an account's owner.
    if (
        mail.attempt_count == 1
        and not user.email_verified
        and not _is_within(attempt_limits.MAIL_TO_UNVERIFIED_MAILBOX, f"{purpose} {_mailbox(user.email_canonical)}")
    ):
        return None
    if purpose == "password_reset" and mail.attempt_count == 1:
        audit_log.record(db, Event.PASSWORD_RESET_REQUESTED, user.id)
    return compose(purpose, user.email, email_tokens.issue(db, user, purpose))


def _mailbox(address: str) -> str:
    """Return the address without its `+` suffix.

    Most mail servers deliver both to the same mailbox.
    """
    local, at, domain = address.rpartition("@")
    return local.partition("+")[0] + at + domain


@contextmanager
def _caused_by(mail: OutgoingMail) -> Iterator[None]:
    """Attribute the block's log lines and audit events to the mail's request.

    That is the request that caused the mail.
    """
    request_id = request_context.request_id.set(mail.request_id)
    address = request_context.client_address.set(mail.client_address)
    try:
        yield
    finally:
        request_context.request_id.reset(request_id)
        request_context.client_address.reset(address)


PAUSE_SECONDS = 2
PAUSE_AFTER_FAILURE_SECONDS = 15
# An unresponsive mail server must not delay shutdown. The mail is sent again after its lease ends.
MAX_STOP_SECONDS = 1


@contextmanager
def delivering() -> Iterator[None]:
    """Deliver mails in a thread during the block, if the settings allow it."""
    settings = get_settings()
    outgoing = transport(settings)
    if outgoing is None:
        if settings.environment == "production" and settings.mail_enabled:
            logger.warning("no mail can be sent, as SMTP_HOST is not set; mails wait in the database for at most a day")
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(outgoing, stop), name="mail-delivery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(MAX_STOP_SECONDS)


def _work(outgoing: Transport, stop: threading.Event) -> None:
    pause: float = 0
    while not stop.wait(pause * random.uniform(0.5, 1)):  # noqa: S311 - jitter, so that workers do not poll together.
        pause = PAUSE_SECONDS
        try:
            while not stop.is_set() and send_next(outgoing):
                pass
        except (SQLAlchemyError, DomainError) as error:  # The database is unavailable or not migrated yet.
            logger.warning("mail delivery paused: error=%s", type(error).__name__)
            pause = PAUSE_AFTER_FAILURE_SECONDS
        except Exception:
            logger.exception("mail delivery paused")
            pause = PAUSE_AFTER_FAILURE_SECONDS
