"""The fast path: frequent routes without FastAPI's router and dependency solver.

FastAPI's router, exit stacks and solver cost more than the rest of a page request (docs/decisions/0012). A route on the
fast path is still an ordinary route of the OpenAPI document. Unusual requests are passed to FastAPI before they have
any effect: an id that is not a number, a body that is not valid, an `Idempotency-Key`, tracing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import signature
from typing import Any

from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.authentication import Credential, ScopedCredential, note_refused
from app.api.route import Route, StrictRequest
from app.errors import DomainError, NotAuthenticated
from app.middleware import problem_details

# Reads one argument of an endpoint. Any exception passes the request to FastAPI, except those that `FastPath` handles.
Reader = Callable[[Request], Awaitable[Any]]


class NotOnFastPath(Exception):
    """Raised for a request that FastAPI has to handle."""


class FastRoute(Route):
    """A route whose endpoint can be called without FastAPI.

    Such an endpoint is a coroutine function that returns a `Response`. Its parameters are credentials, the request,
    values from the path, a model from a JSON body, and dependencies that only read rare headers. Raises `TypeError` for
    other endpoints.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.readers = _readers(self.dependant)

    async def arguments(self, request: Request) -> dict[str, Any]:
        """Return the endpoint's arguments.

        Any exception means that they could not be read.
        """
        return {name: await read(request) for name, read in self.readers.items()}


class FastPath:
    """ASGI middleware of the fast path; passes other and unusual requests to `app`."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        fast = [(method, route) for route in routes if isinstance(route, FastRoute) for method in route.methods or ()]
        self.by_path = {(method, route.path): route for method, route in fast if not route.param_convertors}
        self.by_pattern: dict[str, list[FastRoute]] = {}
        for method, route in fast:
            if route.param_convertors:
                self.by_pattern.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, values = self._match(scope) if scope["type"] == "http" else (None, {})
        if route is None or "fastapi.telemetry" in scope:
            await self.app(scope, receive, send)
            return
        scope.update(route=route, endpoint=route.endpoint, path_params=values)
        request = StrictRequest(scope, receive)
        try:
            arguments = await route.arguments(request)
        # Answer here instead of passing the request on: FastAPI would authenticate again, and an oversized body is
        # already consumed.
        except (DomainError, HTTPException) as error:
            response = await problem_details.respond_to_error(request, error)
        except Exception:  # FastAPI reads the request again, and reports errors in the documented order.
            await self.app(scope, _replayed(request, receive), send)
            return
        else:
            response = await _respond(route, request, arguments)
        await response(scope, receive, send)

    def _match(self, scope: Scope) -> tuple[FastRoute | None, Mapping[str, str]]:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if (route := self.by_path.get((method, path))) is not None:
            return route, {}
        for route in self.by_pattern.get(method, ()):
            if (match := route.path_regex.match(path)) is not None:
                return route, match.groupdict()
        return None, {}


async def _respond(route: FastRoute, request: Request, arguments: Mapping[str, Any]) -> Response:
    try:
        response: Response = await route.endpoint(**arguments)
    except Exception as error:
        if isinstance(error, NotAuthenticated):
            note_refused(request.scope)
        return await problem_details.respond_to_error(request, error)
    return response


def _replayed(request: Request, receive: Receive) -> Receive:
    """Return a `receive` that replays the body, if it was read."""
    body = getattr(request, "_body", None)
    if body is None:
        return receive
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


def _readers(dependant: Dependant) -> dict[str, Reader]:
    """Return the readers by parameter name.

    Credentials come first, so that they are checked before the body is read.
    """
    readers: dict[str, Reader] = {}
    for inner in sorted(dependant.dependencies, key=lambda inner: not _is_credential(inner)):
        readers[inner.name or ""] = inner.call if _is_credential(inner) else _without_headers(inner)  # type: ignore[assignment]
    for field in dependant.path_params:
        readers[field.name] = _from_path(field)
    for field in dependant.body_params:
        readers[field.name] = _from_json(field)
    if dependant.request_param_name is not None:
        readers[dependant.request_param_name] = _itself
    _require_all(dependant, readers)
    return readers


def _require_all(dependant: Dependant, names: Iterable[str]) -> Callable[..., Any]:
    """Return the dependant's function.

    Raises `TypeError` unless these are all its parameters.
    """
    call = dependant.call
    if call is None or {*signature(call).parameters} != {*names}:
        raise TypeError(f"{call} cannot be called without FastAPI")
    return call


def _is_credential(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Credential | ScopedCredential)


async def _itself(request: Request) -> Request:
    return request


def _without_headers(dependant: Dependant) -> Reader:
    """Return a reader of the dependency, for requests without its headers."""
    names = {field.alias.lower().encode() for field in dependant.header_params}
    defaults = {field.name: field.default for field in dependant.header_params}
    request_name = dependant.request_param_name
    call = _require_all(dependant, [*defaults, *([request_name] if request_name else [])])
    if not names:  # It runs for every request, and may need cleanup afterwards.
        raise TypeError(f"{call} cannot be called without FastAPI")

    async def read(request: Request) -> Any:
        if any(name in names for name, _ in request.scope["headers"]):
            raise NotOnFastPath
        return await call(**defaults, **({request_name: request} if request_name else {}))

    return read


def _from_path(field: ModelField) -> Reader:
    async def read(request: Request) -> Any:
        value, errors = field.validate(request.path_params[field.alias], {}, loc=("path", field.alias))
        if errors:
            raise NotOnFastPath
        return value

    return read


def _from_json(field: ModelField) -> Reader:
    async def read(request: Request) -> Any:
        if request.headers.get("content-type") != "application/json":
            raise NotOnFastPath
        value, errors = field.validate(await request.json(), {}, loc=("body",))
        if errors:
            raise NotOnFastPath
        return value

    return read
