"""Encryption at rest of secrets that cannot be hashed.

The only importer of cryptography.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.config import get_settings


class Undecryptable(Exception):
    """The text was not encrypted with any configured key, or was modified."""


def encrypt(plain: bytes) -> bytes:
    """Encrypt and authenticate bytes (Fernet), with a key derived from `SECRET_KEY`."""
    return _fernet(get_settings().signing_secret).encrypt(plain)


def decrypt(encrypted: bytes) -> tuple[bytes, bytes | None]:
    """Return the plain bytes, and a re-encrypted text for an outdated key, else None.

    A previous `SECRET_KEY` is an outdated key. The caller stores the new text in place of the old one. Raises
    `Undecryptable`.
    """
    for number, secret in enumerate(get_settings().accepted_secrets):
        try:
            plain = _fernet(secret).decrypt(encrypted)
        except InvalidToken:
            continue
        return plain, encrypt(plain) if number else None
    raise Undecryptable


@lru_cache
def _fernet(secret: str) -> Fernet:
    # A derived key, so that the signing key encrypts nothing. No salt, because the input is random (RFC 5869, 3.1).
    derived = HKDF(SHA256(), length=32, salt=None, info=b"social-posts encryption at rest").derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
