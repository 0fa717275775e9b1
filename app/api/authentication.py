"""Who is calling, as parameter types.

`Token`, `CurrentUser` and `Admin` accept only people who signed in. `ScopedToken` and `ScopedUser` also accept
API keys, as far as their scopes go. So a new route is closed to keys by default. A leaked key cannot reach
accounts, passwords, sessions, second factors or other keys.
"""

import time
from collections import OrderedDict
from typing import Annotated, NoReturn

from fastapi import Depends
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from starlette.requests import Request
from starlette.types import Scope

from app import models
from app.api import batch_queues, last_seen
from app.config import get_settings
from app.database.sessions import AskedAt, SessionDep, refuse_late, transaction
from app.errors import (
    CredentialMissing,
    CrossSiteRequest,
    InsufficientScope,
    NotAuthenticated,
    NotAuthorized,
)
from app.middleware.headers import header
from app.security import access_tokens
from app.services import api_key, auth

# Browsers keep a cookie of such a name to this host, to https, and from other hosts' reach.
SESSION_COOKIE = "__Host-session"
# In development, over plain http: there Safari and clients that are no browsers drop cookies that are `Secure`.
DEVELOPMENT_COOKIE = "session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

KEY_SCHEME = "ApiKey"
# A digest and what it stands for take some 700 bytes, so all take at most 7 MB.
MAX_REMEMBERED = 10_000

_DESCRIPTION = "Sign in with your e-mail address or username. Sends the `access_token` of `POST /login`."
_KEY_DESCRIPTION = "An API key: the `key` of `POST /api-keys`. It also works as `Authorization: Bearer …`."
TOKEN_SCHEME = OAuth2PasswordBearer.__name__
# What API keys stand for, by their digests. That the key's session is alive is asked at every request all the same.
_remembered: OrderedDict[bytes, api_key.Grant] = OrderedDict()
# Sessions of credentials that were refused. An entry takes some 150 bytes, so all take at most 2 MB.
MAX_ENDED_SESSIONS = 10_000
_ended_session_ids: OrderedDict[int, None] = OrderedDict()


class Credential(OAuth2PasswordBearer):
    """The token of a signed-in user: signed by us, not expired. The query checks that its session is valid.

    A Bearer token is looked at first. A cookie is only taken from pages of this origin where it could change something,
    because browsers send it along with whatever other sites' pages ask for. API keys are refused.
    """

    async def __call__(self, request: Request) -> access_tokens.AccessToken:  # type: ignore[override]
        bearer = _bearer(request.scope)
        if (key := _shown_key(request, bearer)) is not None:
            await _refuse(key)
        return await _signed_in(request, bearer)


class ScopedCredential(APIKeyHeader):
    """The same, or what the caller's API key stands for, where its scopes cover the method."""

    async def __call__(self, request: Request) -> access_tokens.AccessToken:  # type: ignore[override]
        bearer = _bearer(request.scope)
        if (key := _shown_key(request, bearer)) is None:
            return await _signed_in(request, bearer)
        digest = api_key.digest(key)
        grant = _remembered.get(digest) or await _ask_for_grant(digest)
        if request.method not in SAFE_METHODS and "write" not in grant.scopes:
            await _refuse(key)
        last_seen.note_seen(grant.token)
        return grant.token


def _bearer(scope: Scope) -> str | None:
    """The Bearer token that the request carries, if any."""
    scheme, _, token = header(scope, b"authorization").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _signed_in(request: Request, bearer: str | None) -> access_tokens.AccessToken:
    token = _verified(request, bearer)
    if bearer is None and request.method not in SAFE_METHODS and not is_same_origin(request):
        raise CrossSiteRequest
    # Without `iat` a time in the future means that the token lives longer than such a token may.
    since = token.sessionless_since
    if since is not None and since <= max(time.time(), token.issued_at):
        token = await batch_queues.sessionless_tokens().submit(token)
    last_seen.note_seen(token)
    return token


def _verified(request: Request, bearer: str | None) -> access_tokens.AccessToken:
    if bearer is not None:
        return access_tokens.verify(bearer)
    if not (cookie := request.cookies.get(session_cookie(request))):
        raise CredentialMissing
    return access_tokens.verify(cookie, "cookie")


def _shown_key(request: Request, bearer: str | None) -> str | None:
    """The API key that the caller shows: as Bearer token, or, without one, in a header of its own."""
    if bearer is None:
        return request.headers.get("x-api-key")
    return bearer if bearer.startswith(api_key.PREFIX) else None


async def _ask_for_grant(digest: bytes) -> api_key.Grant:
    grant = _remembered[digest] = await batch_queues.api_keys().submit(digest)
    if len(_remembered) > MAX_REMEMBERED:
        _remembered.popitem(last=False)
    return grant


async def _refuse(key: str) -> NoReturn:
    """403, but 401 for a key that has died since it was looked up."""
    await _ask_for_grant(api_key.digest(key))
    raise InsufficientScope


def uses_cookie(request: Request) -> bool:
    """Whether it is the cookie that says who is calling."""
    return _bearer(request.scope) is None and session_cookie(request) in request.cookies


def session_cookie(request: Request) -> str:
    """The name of the session's cookie, the only one that is set and accepted."""
    is_plain = request.scope["scheme"] == "http"
    return DEVELOPMENT_COOKIE if is_plain and get_settings().environment == "development" else SESSION_COOKIE


def is_same_origin(request: Request) -> bool | None:
    """Whether a page of this origin, or the user's own hand, made the request; None where the client says nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return None
    scheme, _, host = origin.partition("://")
    # Only the proxy knows which of the two it is. Applications have origins such as capacitor://localhost.
    return scheme in {"http", "https"} and host == request.headers.get("host")


_credential = Credential(tokenUrl="login", scheme_name=TOKEN_SCHEME, description=_DESCRIPTION)
_scoped_credential = ScopedCredential(name="X-API-Key", scheme_name=KEY_SCHEME, description=_KEY_DESCRIPTION)
Token = Annotated[access_tokens.AccessToken, Depends(_credential)]
ScopedToken = Annotated[access_tokens.AccessToken, Depends(_scoped_credential)]


def user_of(scope: Scope) -> int | None:
    """Return the user of the request's token, API key or cookie, or None. Asks no database.

    A key is known only after this process has looked it up. That a session has ended is known only after this process
    has refused a request of it. From then on it has no user, so that a credential that was stolen and revoked uses up
    nothing of its owner's limits.
    """
    token = _known_token(scope)
    return None if token is None or token.session_id in _ended_session_ids else token.user_id


def note_refused(scope: Scope) -> None:
    """Remember that the session of the request's credential, if its signature is good, has ended."""
    token = _known_token(scope)
    if token is not None:
        _ended_session_ids[token.session_id] = None
        if len(_ended_session_ids) > MAX_ENDED_SESSIONS:
            _ended_session_ids.popitem(last=False)


def _known_token(scope: Scope) -> access_tokens.AccessToken | None:
    request = Request(scope)
    bearer = _bearer(scope)
    try:
        if (key := _shown_key(request, bearer)) is not None:
            return _remembered[api_key.digest(key)].token
        return _verified(request, bearer)
    except (KeyError, NotAuthenticated):
        return None


def current_user(token: Token, db: SessionDep) -> models.User:
    """The caller's account, looked up with their session."""
    return auth.current_user(db, token.user_id, token.session_id)


def scoped_user(token: ScopedToken, db: SessionDep) -> models.User:
    """The caller's account, also for an API key."""
    return auth.current_user(db, token.user_id, token.session_id)


def detached_user(token: Token, asked_at: AskedAt) -> models.User:
    """The caller's account, in a transaction that is over when the route runs."""
    refuse_late(asked_at)
    with transaction() as db:
        return auth.current_user(db, token.user_id, token.session_id)


CurrentUser = Annotated[models.User, Depends(current_user)]
ScopedUser = Annotated[models.User, Depends(scoped_user)]
# For routes that hash before they write, and hold no connection meanwhile.
DetachedUser = Annotated[models.User, Depends(detached_user, max_concurrency=get_settings().database_pool_size)]


class OptionalCredential(OAuth2PasswordBearer):
    """The caller's token; None without one that is good."""

    async def __call__(self, request: Request) -> access_tokens.AccessToken | None:  # type: ignore[override]
        try:
            return await _scoped_credential(request)
        except NotAuthenticated:
            return None


_optional_credential = OptionalCredential(tokenUrl="login", scheme_name=TOKEN_SCHEME, description=_DESCRIPTION)


def optional_user(
    token: Annotated[access_tokens.AccessToken | None, Depends(_optional_credential)], db: SessionDep, request: Request
) -> models.User | None:
    """The caller's account, or None without a valid credential. For public routes."""
    try:
        return None if token is None else auth.current_user(db, token.user_id, token.session_id)
    except NotAuthenticated:
        note_refused(request.scope)
        return None


OptionalUser = Annotated[models.User | None, Depends(optional_user)]


def admin(user: CurrentUser) -> models.User:
    """The caller's account, which is an admin's."""
    if not user.is_admin:
        raise NotAuthorized
    return user


Admin = Annotated[models.User, Depends(admin)]
