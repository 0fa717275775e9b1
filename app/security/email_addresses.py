"""E-mail addresses: their canonical form, and placeholders for hidden ones."""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import urlsplit

import idna
from email_validator import EmailNotValidError, validate_email

from app.config import get_settings

# A reserved domain without mailboxes (RFC 2606).
FALLBACK_HOST = "example.com"


def canonical_email(email: str) -> str:
    """Return the canonical form, which is equal for all spellings of an address.

    `users.email_canonical` stores it. The domain is compared as DNS does it: in ASCII, encoded by IDNA 2008. The local
    part is NFC in lower case. It is not case-folded, because folding joins the mailboxes `straße` and `strasse`, and
    not NFKC, which joins `ﬁ` and `fi` (docs/decisions/0019). Sign-up refuses an address whose domain cannot be encoded.
    Adopted databases may contain one. It keeps the form of earlier releases, so that its owner can still sign in.
    """
    email = email.strip()
    local, at, domain = email.rpartition("@")
    try:
        domain = _ascii_domain(domain)
    except UnicodeError:
        return unicodedata.normalize("NFKC", email).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower()) + at + domain


def _ascii_domain(domain: str) -> str:
    """Return the domain in lower-case ASCII.

    Raises `UnicodeError` if IDNA 2008 does not allow it.
    """
    if domain.isascii():  # Unlike `idna`, accept what DNS accepts, such as `_` in the domains of intranets.
        return domain.lower()
    return idna.encode(domain, uts46=True, transitional=False).decode()


def noreply_domain() -> str:
    """Domain of the placeholders for hidden e-mail addresses.

    It is `users.noreply.` and the host of `PUBLIC_URL`.
    """
    return _noreply_domain(get_settings().public_url)


@lru_cache(maxsize=8)
def _noreply_domain(public_url: str | None) -> str:
    try:
        host = urlsplit(public_url or "").hostname or FALLBACK_HOST
        # Checked with a local part of maximum length. Refuses `localhost`, IP addresses and names such as `.local`.
        checked = validate_email(f"{'a' * 64}@users.noreply.{host}", check_deliverability=False)
    except ValueError:
        return f"users.noreply.{FALLBACK_HOST}"
    return str(checked.ascii_domain)


def placeholder_email(user_id: int, username: str) -> str:
    """The placeholder of an e-mail address that the caller may not see.

    It is valid for `EmailStr` and has no mailbox.
    """
    # A username may contain `..`, an e-mail address may not. `user<id>` is unique to this account.
    local_part = username if _DOT_ATOM.fullmatch(username) else f"user{user_id}"
    return f"{local_part}@{noreply_domain()}"


_DOT_ATOM = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def is_placeholder_email(text: str) -> bool:
    """Whether the address is in the domain of the placeholders, in any spelling."""
    try:
        domain = validate_email(text, check_deliverability=False, test_environment=True).ascii_domain
    except EmailNotValidError:
        domain = canonical_email(text).rpartition("@")[2]
    return domain == noreply_domain()
