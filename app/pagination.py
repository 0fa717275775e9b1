"""Cursors, and the Link header that carries them."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from urllib.parse import urlencode

from app.config import get_settings
from app.errors import MalformedCursor

SIGNATURE_BYTES = 12

CursorValue = str | int | float | None


def seal(values: Sequence[CursorValue]) -> str:
    """A cursor: the values as URL-safe text, signed, so that what `unseal` returns is what was sealed here."""
    payload = json.dumps(list(values), separators=(",", ":")).encode()
    return _encoded(_signature(payload) + payload)


def unseal(cursor: str) -> list[CursorValue]:
    """The values of a cursor made by `seal`. Raises `MalformedCursor` for anything else."""
    try:
        sealed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raise MalformedCursor from None
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    # Decoding ignores what it does not know; a cursor is what `seal` wrote, to the letter.
    if not hmac.compare_digest(signature, _signature(payload)) or _encoded(sealed) != cursor:
        raise MalformedCursor
    values: list[CursorValue] = json.loads(payload)
    return values


def link_header(path: str, parameters: Sequence[tuple[str, str]], **cursors: str | None) -> str | None:
    """`Link` (RFC 8288) to the same path and parameters with each cursor, by relation; None where there is none."""
    kept = [(name, value) for name, value in parameters if name not in {"cursor", "skip"}]
    links = [
        f'<{path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="{relation}"'
        for relation, cursor in cursors.items()
        if cursor is not None
    ]
    return ", ".join(links) or None


def _encoded(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _signature(payload: bytes) -> bytes:
    key = get_settings().signing_secret.encode()
    return hmac.new(key, b"cursor:" + payload, hashlib.sha256).digest()[:SIGNATURE_BYTES]
