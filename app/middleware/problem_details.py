"""Problem responses (RFC 9457) for all errors, and their OpenAPI.

The only place that writes error bodies.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import psycopg2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.database.references import broken_constraint, broken_reference
from app.database.sqlstate import is_temporary, named_by, sqlstate_of
from app.errors import (
    BROKEN_CONSTRAINTS,
    ConstraintViolated,
    DomainError,
    Overloaded,
    StillReferenced,
    Unavailable,
)

logger = logging.getLogger("app.problems")

PROBLEM_JSON = "application/problem+json"
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
# Titles of codes that do not read well as words.
TITLES = {"otp_required": "Two-factor code required"}
# Python's phrases for these statuses change between its versions.
FRAMEWORK_CODES = {413: "body_too_large", 414: "uri_too_long", 422: "validation_failed", 503: Overloaded.code}


class ValidationError(BaseModel):
    """One invalid part of a request, in FastAPI's form.

    The value that was sent is not repeated.
    """

    type: str = Field(description="Kind of error, as Pydantic names it.", examples=["missing"])
    loc: list[str | int] = Field(
        description="Where it is: `body`, `query`, `path` or `header`, then names and list indexes.",
        examples=[["body", "title"]],
    )
    msg: str = Field(description="What is wrong. The words may change.", examples=["Field required"])


class Problem(BaseModel):
    """The body of every response of status 400 and above.

    `Accept: application/problem+json` gets strict RFC 9457.
    """

    detail: str = Field(description="What went wrong. The words may change.")
    code: str = Field(description="What went wrong, as a code that never changes.")
    request_id: str = Field(description="Identifies the request in the server's log. Also in `X-Request-ID`.")
    type: str = Field(description="A URN that ends in the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="The HTTP status.")


class ValidationProblem(Problem):
    """The problem of status 422.

    `detail` is a list of all invalid parts, or one sentence.
    """

    detail: list[ValidationError] | str = Field(  # type: ignore[assignment]
        description="A list if `code` is `validation_failed`, otherwise a sentence. With "
        "`Accept: application/problem+json` it is always a sentence."
    )
    errors: list[ValidationError] = Field(
        [], description="The list of invalid parts. Only with `Accept: application/problem+json`."
    )


def problem_response(
    scope: Scope,
    status: int,
    code: str,
    detail: str | Sequence[Mapping[str, Any]],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the response of an error.

    `detail` is a sentence, or FastAPI's list of validation errors.
    """
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
        "title": TITLES.get(code) or code.replace("_", " ").capitalize(),
        "status": status,
    }


def install(app: FastAPI) -> None:
    """Install handlers that answer exceptions with a `Problem`."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        DomainError: _domain_error,
        HTTPException: _http_exception,
        RequestValidationError: _validation_error,
        DBAPIError: _database_error,
        PoolTimeoutError: _no_connection,
        # Raised outside of a statement, where SQLAlchemy does not wrap exceptions.
        psycopg2.OperationalError: _no_connection,
        psycopg2.InterfaceError: _no_connection,
        # Starlette's outermost layer would answer it. `UnhandledErrors` does, outside of FastAPI.
        Exception: _raise,
    }
    for exception, handler in handlers.items():
        app.add_exception_handler(exception, handler)


async def respond_to_error(request: Request, error: Exception) -> Response:
    """Return the response of the exception's handler.

    Raises the exception if it has none.
    """
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers:
            response: Response = await handlers[kind](request, error)
            return response
    raise error


def refusal(scope: Scope, error: DomainError) -> Response:
    """Build the response to an error that is not raised.

    Not raising the error lets the transaction commit.
    """
    return problem_response(scope, error.status, error.code, error.detail, error.headers)


async def _domain_error(request: Request, error: DomainError) -> Response:
    return refusal(request.scope, error)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    """Answer an exception of the framework, such as a wrong method."""
    if error.status_code == 405:
        # Starlette names the methods of only one of the path's routes.
        methods = _methods_of(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": methods})
        error.headers = {"Allow": methods}
    phrase = HTTPStatus(error.status_code).phrase
    code = FRAMEWORK_CODES.get(error.status_code) or phrase.lower().replace(" ", "_").replace("-", "_")
    return problem_response(request.scope, error.status_code, code, error.detail or phrase, error.headers)


def _methods_of(request: Request) -> str:
    """The value of `Allow`: the methods of all routes of this path, HEAD and OPTIONS."""
    scope = {name: request.scope[name] for name in ("type", "path", "root_path", "headers")}
    routes = request.app.routes
    methods = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    # Do not repeat what was sent (`input`, and quotes of it in `ctx`): it may be a password, or not be JSON.
    wrong_body = _wrong_body(request, error)
    detail = [
        {
            "type": item["type"],
            "loc": list(item["loc"]),
            "msg": wrong_body if wrong_body and item["loc"][0] == "body" else item["msg"],
        }
        for item in error.errors()
    ]
    return problem_response(request.scope, 422, "validation_failed", detail)


def _wrong_body(request: Request, error: RequestValidationError) -> str | None:
    """Return what to send if the body has another `Content-Type` than the route takes.

    FastAPI reads such a body as an empty form, or keeps its bytes, and the errors of its fields would not say why.
    """
    if isinstance(error.body, bytes):
        return "Send JSON, with `Content-Type: application/json`"
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if isinstance(error.body, FormData) and media_type not in FORM_TYPES:
        return f"Send a form, with `Content-Type: {FORM_TYPES[0]}`"
    return None


async def _database_error(request: Request, error: DBAPIError) -> Response:
    if isinstance(error, IntegrityError):
        meaning = BROKEN_CONSTRAINTS.get(named_by(error).constraint or "")
        if meaning is not None:
            return await _domain_error(request, meaning())
        if request.method == "DELETE" and (reference := broken_reference(error)) is not None:
            logger.warning("a foreign key forbids a deletion: %s; run python -m app doctor for details", reference)
            return await _domain_error(request, StillReferenced())
        if (foreign := broken_constraint(error)) is not None:
            logger.warning("a constraint outside this project forbids a write: %s", foreign)
            return await _domain_error(request, ConstraintViolated())
    if is_temporary(error):
        logger.warning("the database did not answer: %s", sqlstate_of(error) or type(error.orig).__name__)
        return await _domain_error(request, Unavailable())
    return unexpected(request.scope, error)


async def _raise(_: Request, error: Exception) -> Response:
    raise error


async def _no_connection(request: Request, _: Exception) -> Response:
    return await _domain_error(request, Unavailable())


class RedactedError(Exception):
    """An error without its message, for the log.

    Messages may quote what a client sent: PostgreSQL quotes the row that breaks a constraint, SQLAlchemy the
    parameters, Pydantic and Python the invalid value. The traceback says where the error happened. This exception
    names its kind.
    """


def _kind(error: Exception) -> str:
    """The kind of the error, from names that no client can choose."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    table, _, constraint = named_by(cause)
    known = (f"{type(cause).__module__}.{type(cause).__qualname__}", sqlstate_of(cause), table, constraint)
    return " ".join(filter(None, known))


def unexpected(scope: Scope, error: Exception) -> Response:
    """Log the traceback of a bug and return a 500 with the request id."""
    request_id = scope.get("state", {}).get("request_id")
    logger.error(
        "unexpected %s", type(error).__name__,
        exc_info=(RedactedError, RedactedError(_kind(error)), error.__traceback__), extra={"request_id": request_id},
    )  # fmt: skip
    return problem_response(scope, 500, "internal_error", "Internal Server Error")


class DocumentedError(NamedTuple):
    """An error in the OpenAPI document."""

    status: int
    code: str
    text: str
    headers: tuple[str, ...] = ()


# Errors of the framework and bugs, which are not in the catalogue.
VALIDATION_FAILED = DocumentedError(422, "validation_failed", "Parts of the request are invalid; `detail` lists them")
INTERNAL_ERROR = DocumentedError(500, "internal_error", "A bug in the server; its log has the `request_id`")
# Names in `components.responses`, which describes each status once. Python's names change between versions.
RESPONSE_NAMES: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    412: "PreconditionFailed",
    413: "ContentTooLarge",
    414: "UriTooLong",
    415: "UnsupportedMediaType",
    422: "UnprocessableContent",
    429: "TooManyRequests",
    431: "HeadersTooLarge",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}
# `components.headers`, to which `headers` refers.
RESPONSE_HEADERS: Mapping[str, dict[str, Any]] = {
    name: {"description": description, "schema": {"type": "integer" if name == "Retry-After" else "string"}}
    for name, description in {
        "Accept-Encoding": "Encodings that a request body may have: `identity`.",
        "ETag": "Version of this response, for `If-None-Match`. That of a post or comment is also for `If-Match`.",
        "Link": 'The next page, `<?…>; rel="next"`, and in lists of posts `rel="prev"`, relative to the request URL.',
        "Location": "Address of the new resource, relative to the request URL.",
        "Retry-After": "Seconds to wait before the next try.",
        "WWW-Authenticate": "How to authenticate: `Bearer`.",
    }.items()
}


def responses(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a route with these errors.

    The errors that every route can have are added elsewhere.
    """
    by_status: dict[int, list[DocumentedError]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(documented(error))
    return {status: response_reference(*kinds) for status, kinds in sorted(by_status.items())}


def documented(error: type[DomainError]) -> DocumentedError:
    """The OpenAPI entry of an error of the catalogue."""
    return DocumentedError(error.status, error.code, (error.__doc__ or "").strip(), tuple(error.headers))


def response_reference(*errors: DocumentedError) -> dict[str, Any]:
    """A reference to the response of the errors' common status.

    Its description names only these errors.
    """
    return {
        "$ref": f"#/components/responses/{RESPONSE_NAMES[errors[0].status]}",
        "description": "; ".join(f"`{error.code}`: {error.text}" for error in errors),
    }


def response_components() -> dict[str, Any]:
    """OpenAPI's `components.responses`: one per status, with an example of each code."""
    return {name: _response_component(status) for status, name in RESPONSE_NAMES.items()}


def _response_component(status: int) -> dict[str, Any]:
    errors = [error for error in _all_documented() if error.status == status]
    model = ValidationProblem if status == VALIDATION_FAILED.status else Problem
    content = {
        "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": {error.code: {"$ref": f"#/components/examples/{error.code}"} for error in errors},
    }
    names = {"Retry-After"} if status in {429, 503} else {name for error in errors for name in error.headers}
    return {
        "description": response_reference(*errors)["description"],
        **headers(*sorted(names)),
        "content": {"application/json": content, PROBLEM_JSON: content},
    }


def headers(*names: str) -> dict[str, Any]:
    """OpenAPI's `headers` of a response; empty without names."""
    references = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"headers": references} if references else {}


def examples() -> dict[str, Any]:
    """OpenAPI's `components.examples`: one body per code."""
    request_id = "0123456789abcdef0123456789abcdef"
    details: dict[str, str | list[dict[str, Any]]] = {
        VALIDATION_FAILED.code: [{"type": "missing", "loc": ["body", "title"], "msg": "Field required"}],
        INTERNAL_ERROR.code: "Internal Server Error",
    }
    return {
        error.code: {"value": _body(error.status, error.code, details.get(error.code, error.text), request_id)}
        for error in _all_documented()
    }


def _all_documented() -> list[DocumentedError]:
    return [VALIDATION_FAILED, *(documented(error) for error in _catalogue(DomainError)), INTERNAL_ERROR]


def _catalogue(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for kind in error.__subclasses__():
        # A subclass without its own code has the code of its parent and only another message.
        if "code" in vars(kind):
            yield kind
        yield from _catalogue(kind)
