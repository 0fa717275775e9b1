"""Route classes: the order in which errors are reported, body limits, and retries."""

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

from app.api.authentication import (
    Credential,
    OptionalCredential,
    PublicCredential,
    ScopedCredential,
    is_public_read,
    note_refused,
)
from app.api.conditional import publish
from app.database.sessions import get_db
from app.database.sqlstate import MAX_PAUSE_SECONDS, RETRIES, is_worth_a_retry, may_read_again
from app.errors import BodyTooLarge, NotAuthenticated, NotAuthorized
from app.models.security_event import Event
from app.security import audit_log

# Enough for the longest e-mail address, password and code in any encoding. JSON of this size becomes at most 0.4 MB of
# Python objects, which a request holds while it waits to hash.
MAX_CREDENTIALS_BYTES = 16_384


def required_credential(dependant: Dependant) -> Credential | ScopedCredential | None:
    """Return the credential that the route requires, or None if it requires none."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, Credential | ScopedCredential):
            return inner.call
        if (found := required_credential(inner)) is not None:
            return found
    return None


class StrictRequest(Request):
    """A request with strict JSON: Python's parser would accept NaN and infinities.

    A body past `max_body_bytes` is read to its end, up to the limit of `BodyLimit`, and refused.
    """

    max_body_bytes: int | None = None
    # The body, once it was read.
    received_body: bytes | None = None

    async def body(self) -> bytes:
        self.received_body = await super().body()
        return self.received_body

    async def stream(self) -> AsyncGenerator[bytes, None]:
        received_bytes = 0
        async for chunk in super().stream():
            received_bytes += len(chunk)
            if self.max_body_bytes is None or received_bytes <= self.max_body_bytes:
                yield chunk
        if self.max_body_bytes is not None and received_bytes > self.max_body_bytes:
            # FastAPI passes on only HTTPExceptions while it reads a body.
            raise HTTPException(BodyTooLarge.status, f"The request body is larger than {self.max_body_bytes} bytes")

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class Route(APIRoute):
    """A route that reports errors in the documented order, such as 401 before 422.

    This includes bodies that are not valid JSON. PostgreSQL aborts transactions because of deadlocks (such as two users
    who swap names) and serialization failures. Then the request runs again, at most three times. A GET is repeated once
    if its database connection broke.
    """

    max_body_bytes: ClassVar[int | None] = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        credential = required_credential(self.dependant)
        is_public = _is_public(self.dependant)
        uses_session = _uses_session(self.dependant)

        async def handle_and_publish(request: Request) -> Response:
            response = await handle_in_order(request)
            return publish(request, response) if is_public and is_public_read(request) else response

        async def handle_in_order(request: Request) -> Response:
            try:
                if request.method == "GET" and not uses_session:
                    return await handle(request)
                strict_request = StrictRequest(request.scope, request.receive)
                strict_request.max_body_bytes = self.max_body_bytes
                return await _repeated(handle, strict_request)
            except NotAuthenticated:
                if credential is not None:  # Otherwise the error is about a refresh token.
                    note_refused(request.scope)
                raise
            except NotAuthorized:
                user_id = (await credential(request)).user_id if credential is not None else None
                what = {"method": request.method, "path": request.url.path}
                audit_log.record(None, Event.NOT_AUTHORIZED, user_id, **what)
                raise
            except (HTTPException, RequestValidationError) as error:
                if isinstance(error, HTTPException) and error.status_code == BodyTooLarge.status:
                    raise  # Before the token is verified, so that the rest of the body is not read.
                # FastAPI reads the body before it verifies the token. A missing or invalid token is reported first.
                if credential is not None:
                    await credential(request)
                if not isinstance(error, HTTPException) or error.status_code != 400:
                    raise
                # FastAPI raises 400 for bodies that are not UTF-8, nested too deeply, or have a number of 5,000 digits.
                problem = {"type": "json_invalid", "loc": ("body",), "msg": "The body cannot be parsed"}
                raise RequestValidationError([problem]) from None

        return handle_and_publish


class CredentialsRoute(Route):
    """A route that takes passwords.

    Its bodies are small, because requests may wait to hash.
    """

    max_body_bytes = MAX_CREDENTIALS_BYTES


def _is_public(dependant: Dependant) -> bool:
    """Return whether the route is for callers without credentials, too, perhaps only with `PUBLIC_READS`."""
    return any(
        isinstance(inner.call, PublicCredential | OptionalCredential) or _is_public(inner)
        for inner in dependant.dependencies
    )


def _uses_session(dependant: Dependant) -> bool:
    return any(inner.call is get_db or _uses_session(inner) for inner in dependant.dependencies)


async def _repeated(handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    is_read = request.method == "GET"
    for retries_left in reversed(range(RETRIES + 1)):
        try:
            # Each run has its own transaction. It commits, and may fail, when this stack closes, because FastAPI ends
            # dependencies of scope="function" then.
            async with AsyncExitStack() as request.scope["fastapi_function_astack"]:
                return await handle(request)
        except (DBAPIError, psycopg2.Error) as error:
            if is_read and may_read_again(error):
                is_read = False
                continue
            if retries_left == 0 or not is_worth_a_retry(error):
                raise
        await asyncio.sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
    raise AssertionError("unreachable")
