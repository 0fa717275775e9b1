"""Refresh tokens: opaque, random, used once. The database keeps hashes of them only (app/models/session.py)."""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256

from app.errors import NotAuthenticated

PREFIX = "refresh_"
FAMILY_BYTES = 16
SECRET_BYTES = 32  # As many as a SHA-256 has, which seals it.
_SHAPE = re.compile(PREFIX + r"([A-Za-z0-9_-]{64})")


@dataclass(frozen=True, slots=True, repr=False)
class RefreshToken:
    """`family` is common to all tokens of a session, one after the other; `secret` is this one's own.

    So a token that was replaced long ago still tells whose it was, and nobody else can name the session.
    """

    family: bytes
    secret: bytes

    @classmethod
    def first(cls) -> "RefreshToken":
        """The first of a new session."""
        return cls(secrets.token_bytes(FAMILY_BYTES), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def read(cls, text: str) -> "RefreshToken":
        """The token that a client sent. Raises `NotAuthenticated` for what cannot be one."""
        if not (shape := _SHAPE.fullmatch(text)):
            raise NotAuthenticated
        content = urlsafe_b64decode(shape[1])
        return cls(content[:FAMILY_BYTES], content[FAMILY_BYTES:])

    def __str__(self) -> str:
        return PREFIX + urlsafe_b64encode(self.family + self.secret).decode()

    def next(self) -> "RefreshToken":
        """One to take its place."""
        return RefreshToken(self.family, secrets.token_bytes(SECRET_BYTES))

    @property
    def family_hash(self) -> bytes:
        return sha256(b"family:" + self.family).digest()

    @property
    def hash(self) -> bytes:
        return sha256(b"token:" + self.family + self.secret).digest()

    def mask(self, successor: "RefreshToken") -> bytes:
        """The successor, for whoever has this token: a one-time pad, as each token has one successor."""
        return bytes(a ^ b for a, b in zip(successor.secret, self._pad, strict=True))

    def unmask(self, masked: bytes) -> "RefreshToken":
        """The successor that this token sealed; for another's seal a token that was never given."""
        return RefreshToken(self.family, bytes(a ^ b for a, b in zip(masked, self._pad, strict=True)))

    @property
    def _pad(self) -> bytes:
        return sha256(b"seal:" + self.family + self.secret).digest()
