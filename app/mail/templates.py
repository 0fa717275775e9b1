"""What mails say."""

import secrets
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from app.config import get_settings
from app.mail.smtp import NeverSent
from app.models import MailKind

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


def compose(kind: MailKind, address: str, token: str = "") -> EmailMessage:
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
