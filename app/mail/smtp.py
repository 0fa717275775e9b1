"""Mail transports: SMTP, or a folder in development.

The only module that imports smtplib.
"""

import logging
import os
import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

import idna

from app.config import LOCAL_FOLDER, Settings, SmtpTls

logger = logging.getLogger("app.mail")

# For the connection and for each reply of the mail server.
TIMEOUT_SECONDS = 10


class NotSent(Exception):
    """The mail was not accepted.

    The message contains no address, unlike many replies of mail servers.
    """


class NeverSent(NotSent):
    """The mail cannot be sent, so that retries are useless."""


class Transport(Protocol):
    """Sends mails. Raises `NotSent` if a mail was not accepted, or if that is unknown."""

    def send(self, message: EmailMessage, address: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Smtp:
    """SMTP transport.

    `starttls` and `tls` require a valid certificate for the server's name.
    """

    host: str
    port: int
    tls: SmtpTls = "starttls"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS

    def send(self, message: EmailMessage, address: str) -> None:
        try:
            address = _for_every_server(address)
            message.replace_header("To", address)
            server = self._connect()
            try:
                server.send_message(message, to_addrs=[address])
                with suppress(OSError):  # The mail is already accepted; a failed QUIT changes nothing.
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPRecipientsRefused as error:
            (code, _), *_ = error.recipients.values()
            raise (NeverSent if code >= 500 else NotSent)(f"the address was refused ({code})") from None
        except smtplib.SMTPResponseException as error:
            raise NotSent(f"{type(error).__name__} ({error.smtp_code})") from None
        except (OSError, ValueError) as error:  # ValueError: no header can hold the address.
            raise NotSent(type(error).__name__) from None

    def check(self) -> None:
        """Connect, encrypt and log in as for a mail, and send none. Raises `NotSent`."""
        try:
            server = self._connect()
            try:
                server.noop()
                with suppress(OSError):
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPResponseException as error:
            raise NotSent(f"{type(error).__name__} ({error.smtp_code})") from None
        except OSError as error:
            raise NotSent(f"{type(error).__name__} ({error})") from None

    def _connect(self) -> smtplib.SMTP:
        name = socket.gethostname()  # smtplib would do a DNS lookup, which may be slow.
        if self.tls == "tls":
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, name, timeout=self.timeout_seconds, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port, name, self.timeout_seconds)
        try:
            if self.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.username is not None:
                server.login(self.username, self.password or "")
        except BaseException:
            server.close()
            raise
        return server


def _for_every_server(address: str) -> str:
    """Return the address with its domain in punycode.

    So only a non-ASCII local part needs SMTPUTF8. Raises `UnicodeError` for a domain that IDNA 2008 does not allow.
    """
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{idna.encode(domain, uts46=True).decode()}"


@dataclass(frozen=True, slots=True)
class Folder:
    """Transport for development: write each mail to a file and log it."""

    path: Path = LOCAL_FOLDER / "mail"

    def send(self, message: EmailMessage, address: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%f}.eml"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            output.write(message.as_bytes())
        logger.info("mail written: to=%s file=%s\n%s", address, file, message.get_content())


def transport(settings: Settings) -> Transport | None:
    """Return the transport of these settings, or None if mails stay in the database."""
    if not settings.mail_enabled:
        return None
    if settings.smtp_host is None:
        return Folder() if settings.environment == "development" else None
    password = settings.smtp_password.get_secret_value() if settings.smtp_password else None
    return Smtp(settings.smtp_host, settings.smtp_port, settings.smtp_tls, settings.smtp_username, password)
