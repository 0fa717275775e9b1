"""The short way to the hot routes, past FastAPI's router, exit stacks and solver.

Those cost more than all else that is done for a page (docs/decisions/0012). A hot route is an ordinary route all the
same: it stands in the document, and whatever is out of the ordinary about a request (an id that is no number, a body
that is not as declared, an `Idempotency-Key`, tracing) is left to FastAPI, before anything was done.
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

# Reads one argument of an endpoint. Raises anything where FastAPI has to look at the request.
Reader = Callable[[Request], Awaitable[Any]]


class NotOnFastPath(Exception):
    """The request is one for FastAPI."""


class FastRoute(Route):
    """A route whose endpoint can be called without FastAPI.

    That is a coroutine function that returns a `Response`, and takes credentials, the request, values from the path, a
    model from a JSON body, and dependencies on headers that are rarely sent. Raises `TypeError` for any
    other.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.readers = _readers(self.dependant)

    async def arguments(self, request: Request) -> dict[str, Any]:
        """What to call the endpoint with. Raises anything where FastAPI has to look at the request."""
        return {name: await read(request) for name, read in self.readers.items()}


class Json(Response):
    """JSON that is written already, and headers as ASGI has them: Starlette's would be encoded for each request."""

    def __init__(self, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


class FastPath:
    """Serves the hot routes, as plain ASGI; all else, and all that is out of the ordinary, goes on to `app`."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        hot = [(method, route) for route in routes if isinstance(route, FastRoute) for method in route.methods or ()]
        self.by_path = {(method, route.path): route for method, route in hot if not route.param_convertors}
        self.by_pattern: dict[str, list[FastRoute]] = {}
        for method, route in hot:
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
        # Answer here instead of falling through: FastAPI would authenticate again, and the body is already consumed.
        except (DomainError, HTTPException) as error:
            response = await problem_details.answer(request, error)
        except Exception:  # Whatever it is, FastAPI says what is wrong, in the contract's order.
            await self.app(scope, _again(request, receive), send)
            return
        else:
            response = await _answered(route, request, arguments)
        await response(scope, receive, send)

    def _match(self, scope: Scope) -> tuple[FastRoute | None, Mapping[str, str]]:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        if (route := self.by_path.get((method, path))) is not None:
            return route, {}
        for route in self.by_pattern.get(method, ()):
            if (match := route.path_regex.match(path)) is not None:
                return route, match.groupdict()
        return None, {}


async def _answered(route: FastRoute, request: Request, arguments: Mapping[str, Any]) -> Response:
    try:
        response: Response = await route.endpoint(**arguments)
    except Exception as error:
        if isinstance(error, NotAuthenticated):
            note_refused(request.scope)
        return await problem_details.answer(request, error)
    return response


def _again(request: Request, receive: Receive) -> Receive:
    """What the server sends, from its start: with the body, if that was read."""
    body = getattr(request, "_body", None)
    if body is None:
        return receive
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


def _readers(dependant: Dependant) -> dict[str, Reader]:
    """By the names of the endpoint's parameters. Who is calling is read first: no body is, before that is known."""
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
    """The dependant's function. Raises `TypeError` unless these are all its parameters."""
    call = dependant.call
    if call is None or {*signature(call).parameters} != {*names}:
        raise TypeError(f"{call} cannot be called without FastAPI")
    return call


def _is_credential(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Credential | ScopedCredential)


async def _itself(request: Request) -> Request:
    return request


def _without_headers(dependant: Dependant) -> Reader:
    """What the dependency is worth to a request without the headers that it looks at."""
    names = {field.alias.lower().encode() for field in dependant.header_params}
    defaults = {field.name: field.default for field in dependant.header_params}
    request_name = dependant.request_param_name
    call = _require_all(dependant, [*defaults, *([request_name] if request_name else [])])
    if not names:  # It does something for every request, and may have something to end.
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
