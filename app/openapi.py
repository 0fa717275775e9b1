"""The OpenAPI document: what FastAPI writes, and what is true of every route beside it."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.errors import CrossSiteRequest, DomainError, InsufficientScope
from app.oauth2 import KEY_SCHEME, SAFE_METHODS, SESSION_COOKIE
from app.problems import PROBLEM_JSON, RESPONSE_HEADERS, examples, headers

DESCRIPTION = """\
Every error has the same shape, `Problem`; `code` stays the same, words may change. Every answer has an `X-Request-ID`.
Paths work with and without a trailing slash, and below `/v1`. `RateLimit` and `RateLimit-Policy` say how many requests
are left and for how many seconds, and so do `X-RateLimit-Limit`, `-Remaining` and `-Reset` (in seconds since 1970).
Unknown query parameters, and unknown fields of a body, are ignored.
"""
# What FastAPI does not know of: everything that takes a Bearer token takes this, too.
COOKIE = "SessionCookie"
COOKIE_SCHEME = {
    "type": "apiKey",
    "in": "cookie",
    "name": SESSION_COOKIE,
    "description": "Set by `POST /login?cookie=true`. With it only pages of the API's own origin change "
    "anything. In development, over plain http, its name is `session`.",
}
# They ask nothing of the database.
NEVER_READ = {"get_root", "get_livez"}
NEVER_LIMITED = {"get_livez", "get_readyz"}


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` return the whole contract."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    for path in document["paths"].values():
        for method, operation in path.items():
            _describe_credentials(operation, is_safe=method.upper() in SAFE_METHODS)
            _describe_errors(operation)
            _describe_links(operation)
    document["components"]["securitySchemes"][COOKIE] = COOKIE_SCHEME
    document["components"] |= {"headers": RESPONSE_HEADERS, "examples": examples()}
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _describe_credentials(operation: dict[str, Any], *, is_safe: bool) -> None:
    if "security" not in operation:
        return
    takes_keys = {KEY_SCHEME: []} in operation["security"]
    if takes_keys:
        operation["security"].insert(0, {"OAuth2PasswordBearer": []})  # Whatever a key may do, people may.
    operation["security"].append({COOKIE: []})
    if not is_safe:
        _declare_error(operation, CrossSiteRequest())
    if "401" in operation["responses"] and not (takes_keys and is_safe):
        _declare_error(operation, InsufficientScope())


def _declare_error(operation: dict[str, Any], error: DomainError) -> None:
    _declare(operation["responses"], str(error.status), f"`{error.code}`: {error.detail}")


def _describe_links(operation: dict[str, Any]) -> None:
    """Whatever is walked by cursors says where it goes on."""
    if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
        for status in {"200", "304"} & set(operation["responses"]):
            operation["responses"][status].setdefault("headers", {}).update(headers("Link")["headers"])


def _describe_errors(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    if operation["operationId"] not in NEVER_READ:
        _declare(answers, "503", "`unavailable`: the database does not answer")
    if operation["operationId"] not in NEVER_LIMITED:
        _declare(answers, "429", "`rate_limited`: too many requests")
    if "requestBody" in operation:
        _declare(answers, "413", "`body_too_large`")
        _declare(answers, "415", "`unsupported_encoding`: it has a Content-Encoding")
    _declare(answers, "400", "`invalid_host`: no `Host`, or two")
    _declare(answers, "414", "`uri_too_long`: past 16 KB")
    _declare(answers, "431", "`headers_too_large`: past 32 KB")
    if "requestBody" in operation or "parameters" in operation:
        own = answers.pop("422", {})
        said = own.get("description", "") if "HTTPValidationError" not in str(own) else ""
        _declare(answers, "422", "; ".join(filter(None, ["`validation_failed`", said])), "ValidationFailed")
    if "security" in operation and "401" not in answers:
        operation["security"].insert(0, {})  # A token is read where there is one, and not asked for.
    _declare(answers, "500", "`internal_error`: a bug of ours; the log has the request id")
    for status, answer in answers.items():
        if status >= "400":
            content = answer["content"]
            codes = re.findall(r"(?:^|; )`([a-z_]+)`", answer["description"])
            references = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
            content["application/json"]["examples"] = references
            content[PROBLEM_JSON] = content["application/json"]
            if status in {"429", "503"}:
                answer.update(headers("Retry-After"))


def _declare(answers: dict[str, Any], status: str, description: str, schema: str = "Problem") -> None:
    said = answers.get(status, {}).get("description")
    answers[status] = {
        "description": f"{said}; {description}" if said else description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
