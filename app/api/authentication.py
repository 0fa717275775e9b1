"""Authentication as parameter types.

`Token`, `CurrentUser` and `Admin` accept only users who signed in. `ScopedToken` and `ScopedUser` also accept API keys
with sufficient scopes. So a new route refuses API keys by default. This keeps a stolen key away from everything with
which it could gain more access: accounts, passwords, sessions, second factors, other keys.
"""

import time
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, NoReturn

from fastapi import Depends, Query
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Scope

from app import models
from app.api import batch_queues, last_seen
from app.config import get_settings
from app.database.sessions import AskedAt, ConnectionLimit, SessionDep, refuse_late, transaction
from app.errors import (
    CredentialMissing,
    CrossSiteRequest,
    DomainError,
    InsufficientScope,
    NotAuthenticated,
    NotAuthorized,
)
from app.middleware.headers import header
from app.models.base import LARGEST_KEY
from app.observability import request_context
from app.security import access_tokens, attempt_limits
from app.services import api_key, auth

# Browsers send a cookie with the prefix `__Host-` to this host over https only, and no other host can set it.
SESSION_COOKIE = "__Host-session"
# For development over plain http, where Safari and clients other than browsers drop `Secure` cookies.
DEVELOPMENT_COOKIE = "session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

KEY_SCHEME = "ApiKey"
# A digest and its grant take about 700 bytes, so all take at most 7 MB.
MAX_REMEMBERED = 10_000

# A ticket for one connection to `/live`.
TICKET_LIFETIME = timedelta(seconds=30)

_DESCRIPTION = "Sign in with your e-mail address or username. Sends the `access_token` of `POST /login`."
_KEY_DESCRIPTION = "An API key: the `key` of `POST /api-keys`. It also works as `Authorization: Bearer …`."
TOKEN_SCHEME = OAuth2PasswordBearer.__name__
# Grants of API keys, by the digests of the keys. Every request still checks that the key's session is valid.
_remembered: OrderedDict[bytes, api_key.Grant] = OrderedDict()
# Sessions of refused credentials. An entry takes about 150 bytes, so all take at most 2 MB.
MAX_ENDED_SESSIONS = 10_000
_ended_session_ids: OrderedDict[int, None] = OrderedDict()


class Credential(OAuth2PasswordBearer):
    """The verified access token of a signed-in user; API keys are refused.

    The signature and expiry are checked here, the validity of the session in the query of the route. A Bearer token
    takes precedence over the cookie. Browsers also send the cookie with requests of other sites' pages. So
    unsafe methods accept it only from pages of this origin.
    """

    async def __call__(self, request: Request) -> access_tokens.AccessToken:  # type: ignore[override]
        bearer = _bearer(request.scope)
        if (key := _api_key(request, bearer)) is not None:
            await _refuse(key)
        return await _signed_in(request, bearer)


class ScopedCredential(APIKeyHeader):
    """A token as from `Credential`, or the grant of an API key with enough scopes."""

    async def __call__(self, request: Request) -> access_tokens.AccessToken:  # type: ignore[override]
        bearer = _bearer(request.scope)
        if (key := _api_key(request, bearer)) is None:
            return await _signed_in(request, bearer)
        digest = api_key.digest(key)
        grant = _remembered.get(digest) or await _look_up_grant(digest)
        if "read" not in grant.scopes:  # A feed key, which is no credential outside of an address.
            raise NotAuthenticated
        if request.method not in SAFE_METHODS and "write" not in grant.scopes:
            await _refuse(key)
        last_seen.note_seen(grant.token)
        return grant.token


class PublicCredential(ScopedCredential):
    """A token as from `ScopedCredential`; `ANONYMOUS` without any credential, if `PUBLIC_READS` allows that."""

    async def __call__(self, request: Request) -> access_tokens.AccessToken:  # type: ignore[override]
        return access_tokens.ANONYMOUS if is_public_read(request) else await super().__call__(request)


class FeedCredential(PublicCredential):
    """A token as from `PublicCredential`, or the grant of a feed key in the parameter `key`.

    Feed readers send no headers of their choice, and addresses get into logs. So keys with other scopes are no
    credentials there, and a feed key is none elsewhere.
    """

    async def __call__(  # type: ignore[override]
        self,
        request: Request,
        key: Annotated[str | None, Query(description="An API key with the scope `feed`, instead of a header.")] = None,
    ) -> access_tokens.AccessToken:
        if key is None:
            return await super().__call__(request)
        digest = api_key.digest(key)
        grant = _remembered.get(digest) or await _look_up_grant(digest)
        if "feed" not in grant.scopes:
            raise NotAuthenticated
        last_seen.note_seen(grant.token)
        return grant.token


class LiveCredential(ScopedCredential):
    """A token as from `ScopedCredential`, or a ticket, for browsers: their `EventSource` sends no headers.

    A ticket is accepted once, by all servers together. The cookie is accepted only from pages of this origin.
    """

    async def __call__(  # type: ignore[override]
        self,
        request: Request,
        ticket: Annotated[
            str | None, Query(description="A ticket of `POST /live/tickets`, instead of another credential.")
        ] = None,
    ) -> access_tokens.AccessToken:
        ticket = ticket or request.query_params.get("ticket")  # `Route` asks again to report 401 before 422.
        if ticket is not None:
            return await _redeem(request, ticket)
        is_refused = is_same_origin(request) is False
        if is_refused and uses_cookie(request) and _api_key(request, None) is None:
            raise CrossSiteRequest
        return await super().__call__(request)


async def _redeem(request: Request, ticket: str) -> access_tokens.AccessToken:
    """Return the token of a ticket. Raises `NotAuthenticated` if another request has used the ticket."""
    state = request.scope["state"]
    if state.get("ticket") != ticket:
        access_tokens.verify(ticket, "ticket")
        if not await run_in_threadpool(attempt_limits.claim, "live_ticket", ticket, kept=2 * TICKET_LIFETIME):
            raise NotAuthenticated
        state["ticket"] = ticket
    # The session lasts longer than the ticket, and the stream ends with it.
    return replace(access_tokens.verify(ticket, "ticket"), expires_at=LARGEST_KEY)


def is_public_read(request: Request) -> bool:
    """Return whether this is a GET without any credential, valid or not, and `PUBLIC_READS` is set."""
    return (
        get_settings().public_reads
        and request.method == "GET"
        and not (header(request.scope, b"authorization") or header(request.scope, b"x-api-key"))
        and session_cookie(request) not in request.cookies
    )


def network_of_anonymous(token: access_tokens.AccessToken) -> str | None:
    """Return the client's network if the token is `ANONYMOUS`: many people read without an account."""
    if token != access_tokens.ANONYMOUS:
        return None
    return request_context.network_of(request_context.client_address.get() or "")


def _bearer(scope: Scope) -> str | None:
    """Return the Bearer token of the request, if any."""
    scheme, _, token = header(scope, b"authorization").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _signed_in(request: Request, bearer: str | None) -> access_tokens.AccessToken:
    token = _verified(request, bearer)
    if bearer is None and request.method not in SAFE_METHODS and not is_same_origin(request):
        raise CrossSiteRequest
    # Without `iat`, a time in the future means that the token's lifetime is longer than the maximum.
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


def _api_key(request: Request, bearer: str | None) -> str | None:
    """Return the API key in the Bearer token, or, without one, in `X-API-Key`."""
    if bearer is None:
        return request.headers.get("x-api-key")
    return bearer if bearer.startswith(api_key.PREFIX) else None


async def _look_up_grant(digest: bytes) -> api_key.Grant:
    grant = _remembered[digest] = await batch_queues.api_keys().submit(digest)
    if len(_remembered) > MAX_REMEMBERED:
        _remembered.popitem(last=False)
    return grant


async def _refuse(key: str) -> NoReturn:
    """Refuse an API key: 403, or 401 if it was revoked since it was looked up."""
    await _look_up_grant(api_key.digest(key))
    raise InsufficientScope


def uses_cookie(request: Request) -> bool:
    """Return whether the request is authenticated by the session cookie."""
    return _bearer(request.scope) is None and session_cookie(request) in request.cookies


def session_cookie(request: Request) -> str:
    """Return the name of the session cookie. No other name is set or accepted."""
    is_plain = request.scope["scheme"] == "http"
    return DEVELOPMENT_COOKIE if is_plain and get_settings().environment == "development" else SESSION_COOKIE


def is_same_origin(request: Request) -> bool | None:
    """Return whether a page of this origin, or the user directly, made the request.

    None means that the client does not say.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return None
    scheme, _, host = origin.partition("://")
    # Only the proxy knows whether it is http or https. Mobile apps have origins such as capacitor://localhost.
    return scheme in {"http", "https"} and host == request.headers.get("host")


_credential = Credential(tokenUrl="login", scheme_name=TOKEN_SCHEME, description=_DESCRIPTION)
scoped_credential = ScopedCredential(name="X-API-Key", scheme_name=KEY_SCHEME, description=_KEY_DESCRIPTION)
Token = Annotated[access_tokens.AccessToken, Depends(_credential)]
public_credential = PublicCredential(name="X-API-Key", scheme_name=KEY_SCHEME, description=_KEY_DESCRIPTION)
ScopedToken = Annotated[access_tokens.AccessToken, Depends(scoped_credential)]
# For what may be read without an account, if `PUBLIC_READS` is set.
PublicToken = Annotated[access_tokens.AccessToken, Depends(public_credential)]
live_credential = LiveCredential(name="X-API-Key", scheme_name=KEY_SCHEME, description=_KEY_DESCRIPTION)
LiveToken = Annotated[access_tokens.AccessToken, Depends(live_credential)]
_feed_credential = FeedCredential(name="X-API-Key", scheme_name=KEY_SCHEME, description=_KEY_DESCRIPTION)
FeedToken = Annotated[access_tokens.AccessToken, Depends(_feed_credential)]


def as_request(scope: Scope) -> Request:
    """Return the handshake of a WebSocket as the GET request that it is."""
    scheme = {"ws": "http", "wss": "https"}[scope["scheme"]]
    return Request({**scope, "type": "http", "method": "GET", "scheme": scheme})


def user_of(scope: Scope) -> int | None:
    """Return the user of the token, API key or cookie, or None, without a query.

    A key is known only after this process has looked it up. A revoked session is known only after this process has
    refused one of its requests. From then on this returns None, so that a stolen and revoked credential does not use
    up its owner's limits.
    """
    token = _known_token(scope)
    return None if token is None or token.session_id in _ended_session_ids else token.user_id


def note_refused(scope: Scope) -> None:
    """Remember the session of a credential as ended, if the signature is valid."""
    token = _known_token(scope)
    if token is not None:
        _ended_session_ids[token.session_id] = None
        if len(_ended_session_ids) > MAX_ENDED_SESSIONS:
            _ended_session_ids.popitem(last=False)


def _known_token(scope: Scope) -> access_tokens.AccessToken | None:
    request = Request(scope) if scope["type"] == "http" else as_request(scope)
    bearer = _bearer(scope)
    try:
        if (key := _api_key(request, bearer)) is not None:
            return _remembered[api_key.digest(key)].token
        return _verified(request, bearer)
    except (KeyError, NotAuthenticated):
        return None


def current_user(token: Token, db: SessionDep) -> models.User:
    """Return the caller's account, after checking that their session is valid."""
    return auth.current_user(db, token.user_id, token.session_id)


def scoped_user(token: ScopedToken, db: SessionDep) -> models.User:
    """Return the account of the caller's token or API key."""
    return auth.current_user(db, token.user_id, token.session_id)


def public_user(token: PublicToken, db: SessionDep) -> models.User:
    """Return the account of the caller's token or API key; for `ANONYMOUS`, one without any rights or rows."""
    return models.User(id=token.user_id, role="user") if token == access_tokens.ANONYMOUS else scoped_user(token, db)


_detached_limit = ConnectionLimit("accounts read before the route")


async def detached_user(token: Token, asked_at: AskedAt) -> models.User:
    """Return the caller's account, read in a transaction that ends before the route."""
    return await _detached(token, asked_at)


async def detached_scoped_user(token: ScopedToken, asked_at: AskedAt) -> models.User:
    """Return the account of the caller's token or API key in the same way."""
    return await _detached(token, asked_at)


async def _detached(token: access_tokens.AccessToken, asked_at: float) -> models.User:
    def read() -> models.User:
        refuse_late(asked_at)
        with transaction() as db:
            return auth.current_user(db, token.user_id, token.session_id)

    async with _detached_limit.slot():
        return await run_in_threadpool(read)


async def is_admin(scope: Scope) -> bool:
    """Return whether an admin with a valid session makes the request."""
    try:
        return (await _detached(await _credential(Request(scope)), time.monotonic())).is_admin
    except DomainError:
        return False


CurrentUser = Annotated[models.User, Depends(current_user)]
ScopedUser = Annotated[models.User, Depends(scoped_user)]
# For what may be read without an account, if `PUBLIC_READS` is set.
PublicUser = Annotated[models.User, Depends(public_user)]
# For routes that hash before they write, so that they hold no connection while hashing.
DetachedUser = Annotated[models.User, Depends(detached_user)]
# For uploads, which hold no connection while their body arrives.
DetachedScopedUser = Annotated[models.User, Depends(detached_scoped_user)]


class OptionalCredential(OAuth2PasswordBearer):
    """The caller's token; None without a valid one."""

    async def __call__(self, request: Request) -> access_tokens.AccessToken | None:  # type: ignore[override]
        try:
            return await scoped_credential(request)
        except NotAuthenticated:
            return None


_optional_credential = OptionalCredential(tokenUrl="login", scheme_name=TOKEN_SCHEME, description=_DESCRIPTION)


def optional_user(
    token: Annotated[access_tokens.AccessToken | None, Depends(_optional_credential)], db: SessionDep, request: Request
) -> models.User | None:
    """Return the caller's account, or None for callers without a valid session.

    It is for routes that need no credentials.
    """
    try:
        return None if token is None else auth.current_user(db, token.user_id, token.session_id)
    except NotAuthenticated:
        note_refused(request.scope)
        return None


OptionalUser = Annotated[models.User | None, Depends(optional_user)]


def admin(user: CurrentUser) -> models.User:
    """Return the caller's account. Raises `NotAuthorized` unless it is an admin's."""
    if not user.is_admin:
        raise NotAuthorized
    return user


Admin = Annotated[models.User, Depends(admin)]


def moderator(user: CurrentUser) -> models.User:
    """Return the caller's account. Raises `NotAuthorized` unless it is a moderator's or an admin's."""
    if not user.is_moderator:
        raise NotAuthorized
    return user


Moderator = Annotated[models.User, Depends(moderator)]
