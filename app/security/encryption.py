"""Secrets that have to be read again, and so cannot be hashed: encrypted at rest; the only importer of cryptography."""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.config import get_settings


class Undecryptable(Exception):
    """It was encrypted with none of the keys there are, or changed since."""


def encrypt(plain: bytes) -> bytes:
    """The bytes, encrypted and authenticated (Fernet) with a key that is derived from `SECRET_KEY`."""
    return _fernet(get_settings().signing_secret).encrypt(plain)


def decrypt(sealed: bytes) -> tuple[bytes, bytes | None]:
    """What was encrypted, and, where that was with a previous `SECRET_KEY`, the same with the newest, to keep instead.

    Raises `Undecryptable`.
    """
    for number, secret in enumerate(get_settings().accepted_secrets):
        try:
            plain = _fernet(secret).decrypt(sealed)
        except InvalidToken:
            continue
        return plain, encrypt(plain) if number else None
    raise Undecryptable


@lru_cache
def _fernet(secret: str) -> Fernet:
    # A key of its own: what signs tokens encrypts nothing. The input is random: no salt (RFC 5869, 3.1).
    derived = HKDF(SHA256(), length=32, salt=None, info=b"social-posts encryption at rest").derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
