"""Errors become HTTP answers, all of one shape, and OpenAPI; the only place that writes an error's body."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.errors import BROKEN_CONSTRAINTS, DomainError, Overloaded, Unavailable

logger = logging.getLogger("app.problems")

PROBLEM_JSON = "application/problem+json"
# SQLSTATE classes that say "not now": connection lost, resources used up, server stopping, statement cut, lock not
# given, and the two that ask to try again.
NOT_NOW = ("08", "53", "57", "55P03", "40001", "40P01")


# Python's phrases for these statuses change between its versions.
FRAMEWORK_CODES = {413: "body_too_large", 414: "uri_too_long", 422: "validation_failed", 503: Overloaded.code}


class ValidationProblem(BaseModel):
    """One thing that is wrong with the request, as FastAPI says it; what was sent is not echoed."""

    type: str = Field(examples=["missing"])
    loc: list[str | int] = Field(examples=[["body", "title"]])
    msg: str = Field(examples=["Field required"])


class Problem(BaseModel):
    """Every answer of status 400 and above. With `Accept: application/problem+json` it is strictly RFC 9457."""

    detail: str = Field(description="What happened, in words that may change.")
    code: str = Field(description="What happened, in a word that never changes.")
    request_id: str = Field(description="Also in `X-Request-ID` and in the server's log.")
    type: str = Field(description="A URN made of the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status again.")


class ValidationFailed(Problem):
    """The request is malformed: `detail` lists what is wrong with it."""

    detail: list[ValidationProblem] | str = Field(  # type: ignore[assignment]
        description="A list where parts of the request are wrong; a sentence otherwise."
    )


def problem_response(
    scope: Scope,
    status: int,
    code: str,
    detail: str | Sequence[Mapping[str, Any]],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The one shape of an error. `detail` is a sentence, or FastAPI's list of what is wrong with the request."""
    request_id = scope.get("state", {}).get("request_id", "")
    body = _body(status, code, detail, request_id)
    media_type = "application/json"
    if any(name == b"accept" and PROBLEM_JSON.encode() in value for name, value in scope.get("headers", ())):
        media_type = PROBLEM_JSON
        if not isinstance(detail, str):
            body |= {"detail": "; ".join(str(item["msg"]) for item in detail), "errors": detail}
    return Response(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"),
        status_code=status,
        headers={**(headers or {}), "Cache-Control": "no-store"},
        media_type=media_type,
    )


def _body(status: int, code: str, detail: str | Sequence[Mapping[str, Any]], request_id: str) -> dict[str, Any]:
    return {
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "type": f"urn:social-posts:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
    }


def install(app: FastAPI) -> None:
    """Make the application answer every exception with a `Problem`."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        DomainError: _domain_error,
        HTTPException: _http_exception,
        RequestValidationError: _validation_error,
        DBAPIError: _database_error,
        PoolTimeoutError: _no_connection,
        # From outside of a statement, where SQLAlchemy wraps nothing.
        psycopg2.OperationalError: _no_connection,
        psycopg2.InterfaceError: _no_connection,
    }
    for exception, handler in handlers.items():
        app.add_exception_handler(exception, handler)


async def answer(request: Request, error: Exception) -> Response:
    """What the application answers to an exception. Raises it where nobody handles its kind."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers:
            response: Response = await handlers[kind](request, error)
            return response
    raise error


def refusal(scope: Scope, error: DomainError) -> Response:
    """The answer to an error that must not be raised, because what was written with it is to be committed."""
    return problem_response(scope, error.status, error.code, error.detail, error.headers)


async def _domain_error(request: Request, error: DomainError) -> Response:
    return refusal(request.scope, error)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    """Raised by the framework: no such route, wrong method, and the like."""
    if error.status_code == 405:
        # Starlette names the methods of one of the path's routes.
        methods = _methods_of(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": methods})
        error.headers = {"Allow": methods}
    phrase = HTTPStatus(error.status_code).phrase
    code = FRAMEWORK_CODES.get(error.status_code) or phrase.lower().replace(" ", "_").replace("-", "_")
    return problem_response(request.scope, error.status_code, code, error.detail or phrase, error.headers)


def _methods_of(request: Request) -> str:
    """What `Allow` says: every method that a route of this path takes, and those that every path takes."""
    scope = {name: request.scope[name] for name in ("type", "path", "root_path", "headers")}
    routes = request.app.routes
    methods = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    # What was sent (`input`, and what `ctx` may quote of it) is not said back: it may be a password, or not be JSON.
    detail = [{"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"]} for item in error.errors()]
    return problem_response(request.scope, 422, "validation_failed", detail)


async def _database_error(request: Request, error: DBAPIError) -> Response:
    state = getattr(error.orig, "pgcode", None)
    if isinstance(error, IntegrityError):
        constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        meaning = BROKEN_CONSTRAINTS.get(constraint or "")
        if meaning is not None:
            return await _domain_error(request, meaning())
    if error.connection_invalidated or state is None or state.startswith(NOT_NOW):
        logger.warning("the database did not answer: %s", state or type(error.orig).__name__)
        return await _domain_error(request, Unavailable())
    return unexpected(request.scope, error)


async def _no_connection(request: Request, _: Exception) -> Response:
    return await _domain_error(request, Unavailable())


class Unquoted(Exception):
    """An error without its words.

    They may be what a client sent: PostgreSQL quotes the row that breaks a constraint, SQLAlchemy the parameters,
    Pydantic and Python the value that does not fit. Where it happened is in the traceback, and what, in this.
    """


def _kind(error: Exception) -> str:
    """What went wrong, in words that no client can choose."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    known = [f"{type(cause).__module__}.{type(cause).__qualname__}", getattr(cause, "pgcode", None)]
    diagnosis = getattr(cause, "diag", None)
    known += [getattr(diagnosis, name, None) for name in ("table_name", "constraint_name")]
    return " ".join(filter(None, known))


def unexpected(scope: Scope, error: Exception) -> Response:
    """A bug of ours: the log gets the traceback, the client a number to ask about."""
    request_id = scope.get("state", {}).get("request_id")
    logger.error(
        "unexpected %s", type(error).__name__,
        exc_info=(Unquoted, Unquoted(_kind(error)), error.__traceback__), extra={"request_id": request_id},
    )  # fmt: skip
    return problem_response(scope, 500, "internal_error", "Internal Server Error")


def responses(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a route that can meet these errors, beside those that every route can."""
    by_status: dict[int, list[type[DomainError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "model": ValidationFailed if status == 422 else Problem,
            "description": "; ".join(f"`{error.code}`: {(error.__doc__ or '').strip()}" for error in kinds),
            **headers(*(name for error in kinds for name in error.headers)),
        }
        for status, kinds in sorted(by_status.items())
    }


# What `headers` can name; OpenAPI's `components.headers`.
RESPONSE_HEADERS: Mapping[str, dict[str, Any]] = {
    name: {"description": description, "schema": {"type": "integer" if name == "Retry-After" else "string"}}
    for name, description in {
        "ETag": "What this answer is; for If-None-Match, and, of a post, for If-Match.",
        "Link": 'The pages before and after, `<?…>; rel="prev"` and `rel="next"`; relative to the request.',
        "Location": "Where the new thing is, relative to the address of the request.",
        "Retry-After": "Seconds after which to try again.",
        "WWW-Authenticate": "`Bearer`.",
    }.items()
}


def headers(*names: str) -> dict[str, Any]:
    """OpenAPI's `headers` of a response that may carry these; nothing where there are none."""
    references = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"headers": references} if references else {}


def examples() -> dict[str, Any]:
    """OpenAPI's `components.examples`: a body for each code of the catalogue, and for those of the framework."""
    request_id = "0123456789abcdef0123456789abcdef"
    bodies = [_body(error.status, error.code, error.__doc__ or "", request_id) for error in _catalogue(DomainError)]
    missing = [{"type": "missing", "loc": ["body", "title"], "msg": "Field required"}]
    bodies.append(_body(422, "validation_failed", missing, request_id))
    bodies.append(_body(500, "internal_error", "Internal Server Error", request_id))
    return {body["code"]: {"value": body} for body in bodies}


def _catalogue(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for kind in error.__subclasses__():
        # Those below another keep its code, and give it other words.
        if "code" in vars(kind):
            yield kind
        yield from _catalogue(kind)
