"""Access tokens: the only importer of jose."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeGuard

from jose import JWTError, jwt

from app.config import get_settings
from app.errors import NotAuthenticated
from app.models.base import LARGEST_KEY

ALGORITHM = "HS256"
MOST_REMEMBERED = 10_000

_REQUIRED = {"require_exp": True, "require_iat": True, "require_sub": True, "require_jti": True, "verify_aud": False}
# Verifying a signature costs 0.05 ms; a token that was verified stays so until it expires. Its session and account
# are looked up at every request all the same.
_remembered: OrderedDict[str, "AccessToken"] = OrderedDict()


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a verified token says: who, in which session, until when (seconds since 1970)."""

    user_id: int
    session_id: int
    expires_at: int


def issue(user_id: int, session_id: int, lifetime: timedelta) -> str:
    """A signed JWT with the tutorial's claims (`user_id`, `exp`) and `sub`, `sid`, `jti`, `iat`."""
    now = int(time.time())
    claims = {
        "user_id": user_id,
        "sub": str(user_id),
        "sid": session_id,
        "jti": secrets.token_urlsafe(12),
        "iat": now,
        "exp": now + int(lifetime.total_seconds()),
    }
    return str(jwt.encode(claims, get_settings().signing_secret, algorithm=ALGORITHM))


def verify(token: str) -> AccessToken:
    """What the token says. Raises `NotAuthenticated` unless we signed it, with every claim, and it has not expired."""
    verified = _remembered.get(token)
    if verified is None:
        verified = _decode(token)
        _remembered[token] = verified
        if len(_remembered) > MOST_REMEMBERED:
            _remembered.popitem(last=False)
    if verified.expires_at <= time.time():
        _remembered.pop(token, None)
        raise NotAuthenticated
    return verified


def _decode(token: str) -> AccessToken:
    try:
        claims = jwt.decode(token, get_settings().signing_secret, algorithms=[ALGORITHM], options=_REQUIRED)
    except (JWTError, OverflowError, RecursionError, TypeError):  # jose lets those of odd times and deep nesting out.
        raise NotAuthenticated from None
    user_id, session_id, expires_at = claims.get("user_id"), claims.get("sid"), claims["exp"]
    if not _is_key(user_id) or not _is_key(session_id) or claims["sub"] != str(user_id):
        raise NotAuthenticated
    return AccessToken(user_id=user_id, session_id=session_id, expires_at=int(expires_at))


def _is_key(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= LARGEST_KEY
