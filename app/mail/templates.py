"""Texts of mails."""

import secrets
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from app.config import get_settings
from app.mail.smtp import NeverSent
from app.models import MailKind

# Subject and text by kind. Tokens are in the URL fragment, which browsers send to no server.
WORDS: dict[MailKind, tuple[str, str]] = {
    "password_reset": (
        "Reset your password",
        "We received a request to reset the password of your account at {site}.\n\n"
        "Choose a new password within an hour:\n{site}/password-reset#token={token}\n\n"
        "The link works once, and only the newest link works. If you did not request this, ignore this mail: nothing"
        " has changed.\n",
    ),
    "email_verification": (
        "Confirm your e-mail address",
        "Your address was entered for an account at {site}. If you did that, confirm it within a day:\n"
        "{site}/email-verification#token={token}\n\n"
        "The link works once, and only the newest link works. If you did not do that, ignore this mail.\n",
    ),
    "password_changed": (
        "Your password was changed",
        "The password of your account at {site} was changed. Its other sessions were signed out.\n\n"
        "If you did not change it, reset it now:\n{site}/password-reset\n",
    ),
    "email_changed": (
        "Your e-mail address was changed",
        "Your account at {site} now has a different e-mail address. You can no longer sign in with this one.\n\n"
        "If you did not change it, contact the operators of {site} at once.\n",
    ),
    "webhook_disabled": (
        "A webhook was disabled",
        "A webhook of your account at {site} was disabled, because its receiver did not accept events for three days,"
        " had too many waiting, or asked for no more.\n\n"
        "See its deliveries, mend the receiver, and enable it again: {site}/webhooks\n",
    ),
}

# Added without `PUBLIC_URL`, as in development, where the reader may have the API only.
REQUESTS: dict[MailKind, str] = {
    "password_reset": """{site}/password-reset/confirm --json '{{"token": "{token}", "password": "a new password"}}'""",
    "email_verification": """{site}/email-verification/confirm --json '{{"token": "{token}"}}'""",
    "password_changed": """{site}/password-reset --json '{{"email": "you@example.com"}}'""",
}


def compose(kind: MailKind, address: str, token: str = "") -> EmailMessage:
    settings = get_settings()
    subject, text = WORDS[kind]
    if settings.public_url is None and kind in REQUESTS:
        if settings.web_client_enabled:
            text += "\nWithout a browser, run:\n"
        else:
            text += "\nNo page is at this link until PUBLIC_URL names a site with one. Until then, run:\n"
        text += f"curl {REQUESTS[kind]}\n"
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
