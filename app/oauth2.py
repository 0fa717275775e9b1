"""Who is calling, as parameter types: `Token`, `CurrentUser`, `OptionalUser`, `Admin`; and how a route is run.

How: in the contract's order of refusals, and again where PostgreSQL asks to try again.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any

import psycopg2
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import audit, models, tokens
from app.batching import LONGEST_PAUSE_SECONDS, RETRIES, TRY_AGAIN, is_connection_lost
from app.database import SessionDep, get_db
from app.errors import NotAuthenticated, NotAuthorized
from app.services import auth

_DESCRIPTION = "The `access_token` of `POST /login`."
_bearer = OAuth2PasswordBearer(tokenUrl="login", auto_error=False, description=_DESCRIPTION)


class VerifiedBearer(OAuth2PasswordBearer):
    """The caller's token: ours and not expired. That its session is alive is for the query to find out."""

    async def __call__(self, request: Request) -> tokens.AccessToken:  # type: ignore[override]
        return tokens.verify(await _bearer(request) or "")


_verified_bearer = VerifiedBearer(tokenUrl="login", scheme_name=_bearer.scheme_name, description=_DESCRIPTION)
Token = Annotated[tokens.AccessToken, Depends(_verified_bearer)]


def current_user(token: Token, db: SessionDep) -> models.User:
    """The caller's account, looked up with their session."""
    return auth.current_user(db, token.user_id, token.session_id)


CurrentUser = Annotated[models.User, Depends(current_user)]


def optional_user(bearer: Annotated[str | None, Depends(_bearer)], db: SessionDep) -> models.User | None:
    """The caller's account; None for somebody who is not, or no longer, signed in. For routes that anyone may call."""
    try:
        token = tokens.verify(bearer or "")
        return auth.current_user(db, token.user_id, token.session_id)
    except NotAuthenticated:
        return None


OptionalUser = Annotated[models.User | None, Depends(optional_user)]


def admin(user: CurrentUser) -> models.User:
    """The caller's account, which is an admin's."""
    if not user.is_admin:
        raise NotAuthorized
    return user


Admin = Annotated[models.User, Depends(admin)]


def requires_token(dependant: Dependant) -> bool:
    """Whether the route is for those who are signed in."""
    return any(inner.call is _verified_bearer or requires_token(inner) for inner in dependant.dependencies)


class Route(APIRoute):
    """A route that refuses in the contract's order: 401 before 422, even when the body is not JSON at all.

    What PostgreSQL breaks off to end a deadlock (two users who swap names) or for a serialization failure was rolled
    back: the request runs again, at most three times. A GET whose connection broke is answered once more.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        is_protected = requires_token(self.dependant)
        uses_session = _uses_session(self.dependant)

        async def handle_in_order(request: Request) -> Response:
            try:
                if request.method == "GET" and not uses_session:
                    return await handle(request)
                return await _repeated(handle, request)
            except NotAuthorized:
                caller = await _verified_bearer(request)
                what = {"method": request.method, "path": request.url.path}
                audit.record(None, audit.Event.NOT_AUTHORIZED, caller.user_id, **what)
                raise
            except (HTTPException, RequestValidationError) as error:
                # The body is read before the token is; whoever has none is told that, whatever the body is.
                if is_protected:
                    await _verified_bearer(request)
                if not isinstance(error, HTTPException) or error.status_code != 400:
                    raise
                # FastAPI's word for a body that is not UTF-8, is nested too deeply, or has a number of 5 000 digits.
                problem = {"type": "json_invalid", "loc": ("body",), "msg": "The body cannot be parsed"}
                raise RequestValidationError([problem]) from None

        return handle_in_order


def _uses_session(dependant: Dependant) -> bool:
    return any(inner.call is get_db or _uses_session(inner) for inner in dependant.dependencies)


async def _repeated(handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    may_read_again = request.method == "GET"
    for retries_left in reversed(range(RETRIES + 1)):
        try:
            # Each run has a transaction of its own, which ends, and may fail, where FastAPI ends dependencies of
            # scope="function": when this stack closes.
            async with AsyncExitStack() as request.scope["fastapi_function_astack"]:
                return await handle(request)
        except (DBAPIError, psycopg2.Error) as error:
            if may_read_again and is_connection_lost(error):
                may_read_again = False
                continue
            if retries_left == 0 or getattr(getattr(error, "orig", error), "pgcode", None) not in TRY_AGAIN:
                raise
        await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
    raise AssertionError("unreachable")
