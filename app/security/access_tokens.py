"""Access tokens and the session cookie (JWT). The only importer of jose."""

import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal, TypeGuard

from jose import JWTError, jws, jwt
from jose.exceptions import JWSError

from app.config import get_settings
from app.errors import NotAuthenticated
from app.models.base import LARGEST_KEY
from app.models.session import FIRST_ADOPTED, LAST_SESSIONLESS_USER_ID, adopted_session_id

ALGORITHM = "HS256"
# Maximum cached tokens of each kind. Only tokens that we signed are cached. Each takes about 1 KB: at most 20 MB.
MAX_REMEMBERED = 10_000
MAX_CHARACTERS = 2_000  # Ours have about 300.
# Maximum clock difference between two servers. A token issued further in the future is refused.
MAX_SKEW_SECONDS = 60

# `access` is sent as a Bearer token, `cookie` as a cookie, `ticket` in an address. None is accepted as another.
Kind = Literal["access", "cookie", "ticket"]

_REQUIRED = {"require_exp": True, "verify_aud": False}
_CLAIMS = frozenset({"user_id", "sub", "sid", "jti", "iat", "exp"})
# The exact claims of the tutorial's tokens. With `TUTORIAL_DEFAULTS`, they may also have `iat`.
_TUTORIAL_CLAIMS = frozenset({"user_id", "exp"})
# Maximum lifetime of a token without a session id that we did not issue, unless ACCESS_TOKEN_EXPIRE_MINUTES is longer.
MAX_SESSIONLESS_LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The user, session and expiry of a verified credential.

    Times are in seconds since 1970. `issued_at` is when the issuer updated the session's last-seen time; 0 if it did
    not. `sessionless_since` is set with `TUTORIAL_DEFAULTS`, for a token without a session id. It is the earliest time
    at which the token may have been issued. `services.sessionless` decides on such tokens at every request.
    """

    user_id: int
    session_id: int
    expires_at: int
    issued_at: int = field(default=0, compare=False)
    sessionless_since: int | None = field(default=None, compare=False)


# Stands for the caller of a request without credentials (see `PUBLIC_READS`). No account and no session has this id.
ANONYMOUS = AccessToken(user_id=-(2**63), session_id=-(2**63), expires_at=0)


# Cache of verified tokens, until they expire, because verifying a signature costs 0.05 ms. The session and account are
# still looked up at every request.
_remembered: dict[Kind, OrderedDict[str, AccessToken]] = {
    "access": OrderedDict(),
    "cookie": OrderedDict(),
    "ticket": OrderedDict(),
}


def issue(user_id: int, session_id: int, lifetime: timedelta, kind: Kind = "access") -> str:
    """Issue a signed JWT.

    It has the tutorial's claims (`user_id`, `exp`) and `sub`, `sid`, `jti`, `iat`. Its header names the key (`kid`). A
    token of another kind than `access` has the claim `typ`.
    """
    now = int(time.time())
    claims = {
        "user_id": user_id,
        "sub": str(user_id),
        "sid": session_id,
        "jti": secrets.token_urlsafe(12),
        "iat": now,
        "exp": now + int(lifetime.total_seconds()),
        **({} if kind == "access" else {"typ": kind}),
    }
    secret = get_settings().signing_secret
    return str(jwt.encode(claims, secret, algorithm=ALGORITHM, headers={"kid": key_id(secret)}))


def verify(token: str, kind: Kind = "access") -> AccessToken:
    """Verify a token and return its claims.

    Raises `NotAuthenticated` unless we signed it, as this kind, and it has not expired. A token of the tutorial belongs
    to the session that `adopt` created for its user, unless `sessionless_since` says that there may be another.
    """
    remembered = _remembered[kind]
    verified = remembered.get(token)
    if verified is None:
        verified = _decode(token, kind)
        remembered[token] = verified
        if len(remembered) > MAX_REMEMBERED:
            remembered.popitem(last=False)
    now = time.time()
    if verified.expires_at <= now or verified.issued_at > now + MAX_SKEW_SECONDS:
        remembered.pop(token, None)
        raise NotAuthenticated
    return verified


def _decode(token: str, kind: Kind) -> AccessToken:
    if len(token) > MAX_CHARACTERS or not _is_canonical(token.rpartition(".")[2]):
        raise NotAuthenticated
    try:
        keys = _keys(jwt.get_unverified_header(token))
        claims = jwt.decode(token, keys, algorithms=[ALGORITHM], options=_REQUIRED)
    except (JWTError, OverflowError, RecursionError, TypeError):  # jose does not catch odd times and deep nesting.
        raise NotAuthenticated from None
    user_id, session_id, expires_at = claims.get("user_id"), claims.get("sid"), claims["exp"]
    if kind == "access" and _is_of_the_tutorial(claims) and _is_key(user_id):
        return _without_session(token, claims)
    if not claims.keys() >= _CLAIMS or claims.get("typ", "access") != kind or claims["sub"] != str(user_id):
        raise NotAuthenticated
    # We issue no token for the sessions that stand for tokens without a session id.
    if not _is_key(user_id) or not _is_key(session_id) or session_id > FIRST_ADOPTED:
        raise NotAuthenticated
    return AccessToken(user_id, session_id, expires_at=int(expires_at), issued_at=int(claims["iat"]))


def _is_of_the_tutorial(claims: Mapping[str, object]) -> bool:
    if get_settings().tutorial_defaults and type(claims.get("iat")) in {int, float}:
        return claims.keys() - {"iat"} == _TUTORIAL_CLAIMS
    return claims.keys() == _TUTORIAL_CLAIMS


def _without_session(token: str, claims: Mapping[str, Any]) -> AccessToken:
    user_id, expires_at = claims["user_id"], int(claims["exp"])
    if user_id > LAST_SESSIONLESS_USER_ID:
        raise NotAuthenticated
    settings = get_settings()
    issued_at = int(claims.get("iat", 0))
    adopted = AccessToken(user_id, adopted_session_id(user_id), expires_at, issued_at)
    if not settings.tutorial_defaults or not _is_signed_with(settings.signing_secret, token):
        return adopted
    longest = int(max(MAX_SESSIONLESS_LIFETIME, settings.access_token_lifetime).total_seconds()) + MAX_SKEW_SECONDS
    since = issued_at if "iat" in claims else expires_at - longest
    return replace(adopted, sessionless_since=since) if expires_at - since <= longest else adopted


def _is_signed_with(secret: str, token: str) -> bool:
    try:
        jws.verify(token, [secret], ALGORITHM)
    except JWSError:
        return False
    return True


def _keys(header: dict[str, object]) -> list[str]:
    """The key that the header names.

    Without `kid`, as in older releases: all accepted keys. Always a list, because jose treats a single string that
    happens to be JSON as a key set.
    """
    accepted = get_settings().accepted_secrets
    return [secret for secret in accepted if key_id(secret) == header["kid"]] if "kid" in header else accepted


@lru_cache
def key_id(secret: str) -> str:
    """The `kid` of a secret, equal on every host."""
    return sha256(b"key id:" + secret.encode()).hexdigest()[:12]


def _is_canonical(signature: str) -> bool:
    """Whether the base64 text is canonical.

    The decoder ignores some characters and some bits.
    """
    try:
        decoded = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except ValueError:
        return False
    return urlsafe_b64encode(decoded).rstrip(b"=").decode() == signature


def _is_key(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= LARGEST_KEY
