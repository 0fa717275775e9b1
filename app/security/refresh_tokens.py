"""Refresh tokens: opaque, random, single-use.

The database stores only hashes (app/models/session.py).
"""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256

from app.errors import NotAuthenticated

PREFIX = "refresh_"
FAMILY_BYTES = 16
SECRET_BYTES = 32  # As many as SHA-256 has, which masks it.
_SHAPE = re.compile(PREFIX + r"([A-Za-z0-9_-]{64})")


@dataclass(frozen=True, slots=True, repr=False)
class RefreshToken:
    """A refresh token.

    All tokens of a session have the same `family`, each has its own `secret`. So a token that was replaced long ago
    still identifies its session, and other clients cannot name the session.
    """

    family: bytes
    secret: bytes

    @classmethod
    def first(cls) -> "RefreshToken":
        """Generate the first token of a new session."""
        return cls(secrets.token_bytes(FAMILY_BYTES), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def read(cls, text: str) -> "RefreshToken":
        """Parse the token that a client sent.

        Raises `NotAuthenticated` if it is malformed.
        """
        if not (shape := _SHAPE.fullmatch(text)):
            raise NotAuthenticated
        content = urlsafe_b64decode(shape[1])
        return cls(content[:FAMILY_BYTES], content[FAMILY_BYTES:])

    def __str__(self) -> str:
        return PREFIX + urlsafe_b64encode(self.family + self.secret).decode()

    def next(self) -> "RefreshToken":
        """Generate the successor."""
        return RefreshToken(self.family, secrets.token_bytes(SECRET_BYTES))

    @property
    def family_hash(self) -> bytes:
        return sha256(b"family:" + self.family).digest()

    @property
    def hash(self) -> bytes:
        return sha256(b"token:" + self.family + self.secret).digest()

    def mask(self, successor: "RefreshToken") -> bytes:
        """Mask the successor with a one-time pad.

        Only a client with this token can unmask it. The pad is used once, because each token has one successor.
        """
        return bytes(a ^ b for a, b in zip(successor.secret, self._pad, strict=True))

    def unmask(self, masked: bytes) -> "RefreshToken":
        """The successor that this token masked.

        For the mask of another token: a token that was never issued.
        """
        return RefreshToken(self.family, bytes(a ^ b for a, b in zip(masked, self._pad, strict=True)))

    @property
    def _pad(self) -> bytes:
        return sha256(b"seal:" + self.family + self.secret).digest()
