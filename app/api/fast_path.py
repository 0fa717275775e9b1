"""The fast path: hot operations without FastAPI's router and dependency solver.

Router and solver cost more than the rest of a page request (docs/decisions/0012). An operation of the fast path is
still an ordinary route of FastAPI. It also has an adapter, which reads the arguments from the request and calls the
same functions.

An adapter passes unusual requests to FastAPI before they have any effect: those with an invalid id or body, or with an
`Idempotency-Key`. So FastAPI reports all errors of parameters.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.authentication import note_refused
from app.api.route import StrictRequest
from app.errors import DomainError, NotAuthenticated
from app.middleware import problem_details
from app.schemas.types import Id

# Responds to a request for one operation, or raises `NotOnFastPath`.
Adapter = Callable[[Request], Awaitable[Response]]
Model = TypeVar("Model", bound=BaseModel)

_ID = TypeAdapter[int](Id)


class NotOnFastPath(Exception):
    """Raised by an adapter, before any effect: FastAPI must handle the request."""


def path_id(request: Request) -> int:
    """Return the `id` of the path. Raises `NotOnFastPath` if it is invalid."""
    try:
        return _ID.validate_python(request.path_params["id"])
    except ValueError:
        raise NotOnFastPath from None


async def json_body(request: Request, model: type[Model]) -> Model:
    """Return the validated JSON body.

    Raises `NotOnFastPath` if it is invalid or of another type.
    """
    if request.headers.get("content-type") != "application/json":
        raise NotOnFastPath
    try:
        return model.model_validate(await request.json())
    except (DomainError, HTTPException):  # An oversized body is already consumed, so FastAPI could not read it.
        raise
    except Exception:
        raise NotOnFastPath from None


class FastPath:
    """ASGI middleware that serves the operations with an adapter; others go to `app`.

    `adapters` has the adapters by the endpoint of the route. Raises `ValueError` for an endpoint without a route.
    """

    def __init__(
        self, app: ASGIApp, *, routes: Iterable[BaseRoute], adapters: Mapping[Callable[..., Any], Adapter]
    ) -> None:
        self.app = app
        self.adapters = adapters
        fast = [route for route in routes if isinstance(route, APIRoute) and route.endpoint in adapters]
        if missing := {*adapters} - {route.endpoint for route in fast}:
            raise ValueError(f"no route has the endpoints {missing}")
        by_method = [(method, route) for route in fast for method in route.methods or ()]
        self.by_path = {(method, route.path): route for method, route in by_method if not route.param_convertors}
        self.by_pattern: dict[str, list[APIRoute]] = {}
        for method, route in by_method:
            if route.param_convertors:
                self.by_pattern.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, values = self._match(scope) if scope["type"] == "http" else (None, {})
        if route is None:
            await self.app(scope, receive, send)
            return
        scope.update(route=route, endpoint=route.endpoint, path_params=values)
        request = StrictRequest(scope, receive)
        try:
            response = await self.adapters[route.endpoint](request)
        except NotOnFastPath:
            await self.app(scope, _replayed(request.received_body, receive), send)
            return
        except Exception as error:
            if isinstance(error, NotAuthenticated):
                note_refused(scope)
            response = await problem_details.respond_to_error(request, error)
        await response(scope, receive, send)

    def _match(self, scope: Scope) -> tuple[APIRoute | None, Mapping[str, str]]:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if (route := self.by_path.get((method, path))) is not None:
            return route, {}
        for route in self.by_pattern.get(method, ()):
            if (match := route.path_regex.match(path)) is not None:
                return route, match.groupdict()
        return None, {}


def _replayed(body: bytes | None, receive: Receive) -> Receive:
    """Return a `receive` that replays the body, if it was read."""
    if body is None:
        return receive
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again
