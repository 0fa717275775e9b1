"""How a route is run: in the contract's order of refusals, and again where PostgreSQL asks to try again."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import psycopg2
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api.authentication import Credential, ScopedCredential, note_refused
from app.database.sessions import get_db
from app.database.sqlstate import MAX_PAUSE_SECONDS, RETRIES, TRY_AGAIN, may_read_again
from app.errors import BodyTooLarge, NotAuthenticated, NotAuthorized
from app.models.security_event import Event
from app.security import audit_log

# Past the longest e-mail address, password and code, however they are encoded. JSON of so many bytes becomes at most
# 0.4 MB of Python objects, which a request keeps while it waits to hash.
MAX_CREDENTIALS_BYTES = 16_384


def required_credential(dependant: Dependant) -> Credential | ScopedCredential | None:
    """The credential that the route requires; None for public routes."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, Credential | ScopedCredential):
            return inner.call
        if (found := required_credential(inner)) is not None:
            return found
    return None


class StrictRequest(Request):
    """A request whose body is JSON to the letter: Python's parser takes NaN and the infinities for numbers.

    A body past `max_body_bytes` is read to its end, which `BodyLimit` bounds, and refused.
    """

    max_body_bytes: int | None = None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        received_bytes = 0
        async for chunk in super().stream():
            received_bytes += len(chunk)
            if self.max_body_bytes is None or received_bytes <= self.max_body_bytes:
                yield chunk
        if self.max_body_bytes is not None and received_bytes > self.max_body_bytes:
            # While FastAPI reads a body, it lets only HTTPExceptions through.
            raise HTTPException(BodyTooLarge.status, f"The request body is larger than {self.max_body_bytes} bytes")

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class Route(APIRoute):
    """A route that refuses in the contract's order: 401 before 422, even when the body is not JSON at all.

    What PostgreSQL breaks off to end a deadlock (two users who swap names) or for a serialization failure was rolled
    back: the request runs again, at most three times. A GET whose connection broke is answered once more.
    """

    max_body_bytes: ClassVar[int | None] = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        credential = required_credential(self.dependant)
        uses_session = _uses_session(self.dependant)

        async def handle_in_order(request: Request) -> Response:
            try:
                if request.method == "GET" and not uses_session:
                    return await handle(request)
                strict_request = StrictRequest(request.scope, request.receive)
                strict_request.max_body_bytes = self.max_body_bytes
                return await _repeated(handle, strict_request)
            except NotAuthenticated:
                if credential is not None:  # Else it is not about the caller's, but about a refresh token.
                    note_refused(request.scope)
                raise
            except NotAuthorized:
                user_id = (await credential(request)).user_id if credential is not None else None
                what = {"method": request.method, "path": request.url.path}
                audit_log.record(None, Event.NOT_AUTHORIZED, user_id, **what)
                raise
            except (HTTPException, RequestValidationError) as error:
                if isinstance(error, HTTPException) and error.status_code == BodyTooLarge.status:
                    raise  # Before the token is verified: what is left of the body is not read.
                # The body is read before the token, but a missing token is reported first.
                if credential is not None:
                    await credential(request)
                if not isinstance(error, HTTPException) or error.status_code != 400:
                    raise
                # FastAPI's word for a body that is not UTF-8, is nested too deeply, or has a number of 5 000 digits.
                problem = {"type": "json_invalid", "loc": ("body",), "msg": "The body cannot be parsed"}
                raise RequestValidationError([problem]) from None

        return handle_in_order


class CredentialsRoute(Route):
    """A route that takes passwords. Its requests may wait to hash, so their bodies are small."""

    max_body_bytes = MAX_CREDENTIALS_BYTES


def _uses_session(dependant: Dependant) -> bool:
    return any(inner.call is get_db or _uses_session(inner) for inner in dependant.dependencies)


async def _repeated(handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    is_read = request.method == "GET"
    for retries_left in reversed(range(RETRIES + 1)):
        try:
            # Each run has a transaction of its own, which ends, and may fail, where FastAPI ends dependencies of
            # scope="function": when this stack closes.
            async with AsyncExitStack() as request.scope["fastapi_function_astack"]:
                return await handle(request)
        except (DBAPIError, psycopg2.Error) as error:
            if is_read and may_read_again(error):
                is_read = False
                continue
            if retries_left == 0 or getattr(getattr(error, "orig", error), "pgcode", None) not in TRY_AGAIN:
                raise
        await asyncio.sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
    raise AssertionError("unreachable")
