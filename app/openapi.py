"""The OpenAPI document: what FastAPI writes, and what is true of every route beside it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.problems import PROBLEM_JSON

DESCRIPTION = """\
Every error has the same shape, `Problem`; `code` stays the same, words may change. Every answer has an `X-Request-ID`.
Paths work with and without a trailing slash, and below `/v1`. `RateLimit` and `RateLimit-Policy` say how many requests
are left and for how many seconds, and so do `X-RateLimit-Limit`, `-Remaining` and `-Reset` (in seconds since 1970).
"""
# They ask nothing of the database.
NEVER_READ = {"get_root", "get_livez"}
NEVER_LIMITED = {"get_livez", "get_readyz"}
RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer"}}


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
        for operation in path.values():
            _describe_errors(operation)
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _describe_errors(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    if operation["operationId"] not in NEVER_READ:
        _declare(answers, "503", "`unavailable`: the database does not answer")
    if operation["operationId"] not in NEVER_LIMITED:
        _declare(answers, "429", "`rate_limited`: too many requests")
        answers["429"]["headers"] = {"Retry-After": RETRY_AFTER}
    if "requestBody" in operation:
        _declare(answers, "413", "`body_too_large`")
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
            content[PROBLEM_JSON] = content["application/json"]


def _declare(answers: dict[str, Any], status: str, description: str, schema: str = "Problem") -> None:
    said = answers.get(status, {}).get("description")
    answers[status] = {
        "description": f"{said}; {description}" if said else description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
