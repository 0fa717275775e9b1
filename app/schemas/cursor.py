"""Signed cursors: positions in lists."""

import base64
import hmac
import json
from collections.abc import Sequence

from app.config import get_settings
from app.errors import MalformedCursor

SIGNATURE_BYTES = 12

CursorValue = str | int | float | list[int] | None


def sign(values: Sequence[CursorValue]) -> str:
    """Return a cursor: the values as signed, URL-safe text."""
    payload = _encode(list(values)).encode()
    return _encoded(_signature(payload, get_settings().signing_secret) + payload)


def verify(cursor: str) -> list[CursorValue]:
    """Return the values of a cursor made by `sign`.

    Raises `MalformedCursor` for other text.
    """
    try:
        signed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raise MalformedCursor from None
    signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    secrets = get_settings().accepted_secrets
    is_ours = any(hmac.compare_digest(signature, _signature(payload, secret)) for secret in secrets)
    # Compare the whole text with `sign`'s, because decoding ignores unknown characters.
    if not is_ours or _encoded(signed) != cursor:
        raise MalformedCursor
    values: list[CursorValue] = json.loads(payload)
    return values


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _encoded(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def _signature(payload: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), b"cursor:" + payload, "sha256").digest()[:SIGNATURE_BYTES]
