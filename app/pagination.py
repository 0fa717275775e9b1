"""Cursors, and the Link header that carries them."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

from app.config import get_settings
from app.errors import MalformedCursor

SIGNATURE_BYTES = 12

CursorValue = str | int | float | None


def seal(values: Sequence[CursorValue]) -> str:
    """A cursor: the values as URL-safe text, signed, so that what `unseal` returns is what was sealed here."""
    payload = json.dumps(list(values), separators=(",", ":")).encode()
    return _encoded(_signature(payload, get_settings().signing_secret) + payload)


def unseal(cursor: str) -> list[CursorValue]:
    """The values of a cursor made by `seal`. Raises `MalformedCursor` for anything else."""
    try:
        sealed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raise MalformedCursor from None
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    secrets = get_settings().accepted_secrets
    is_ours = any(hmac.compare_digest(signature, _signature(payload, secret)) for secret in secrets)
    # Decoding ignores what it does not know; a cursor is what `seal` wrote, to the letter.
    if not is_ours or _encoded(sealed) != cursor:
        raise MalformedCursor
    values: list[CursorValue] = json.loads(payload)
    return values


def id_of(cursor: str, made_for: str) -> int:
    """The id in a cursor of a list that is sorted by id alone. Raises `MalformedCursor`, also for another list's."""
    match unseal(cursor):
        case [str() as kind, int() as number] if kind == made_for:
            return number
    raise MalformedCursor


@lru_cache(maxsize=4096)
def link_header(path: str, query: bytes, **cursors: str | None) -> str | None:
    """`Link` (RFC 8288) to the same path and parameters with each cursor, by relation; None where there is none.

    `query` is the query string as it was sent. Many ask for the same page, so the newest answers are remembered.
    """
    parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in parameters if name not in {"cursor", "skip"}]
    links = [
        f'<{path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="{relation}"'
        for relation, cursor in cursors.items()
        if cursor is not None
    ]
    return ", ".join(links) or None


def _encoded(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _signature(payload: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), b"cursor:" + payload, hashlib.sha256).digest()[:SIGNATURE_BYTES]
