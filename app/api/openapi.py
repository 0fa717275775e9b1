"""The OpenAPI document: FastAPI's, with the common parts of all operations."""

import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.authentication import KEY_SCHEME, SAFE_METHODS, SESSION_COOKIE, TOKEN_SCHEME
from app.api.pagination import SCHEMA_REFERENCE, query_parameters
from app.errors import (
    BodyTooLarge,
    ConstraintViolated,
    CrossSiteRequest,
    DomainError,
    HeadersTooLarge,
    InsufficientScope,
    InvalidHost,
    RateLimited,
    Unavailable,
    UnsupportedEncoding,
    UriTooLong,
)
from app.middleware.problem_details import (
    INTERNAL_ERROR,
    RESPONSE_HEADERS,
    VALIDATION_FAILED,
    DocumentedError,
    Problem,
    ValidationProblem,
    documented,
    examples,
    headers,
    response_components,
    response_reference,
)
from app.schemas.comment import ThreadParameters
from app.schemas.post import HomeParameters, PageParameters
from app.schemas.vote import VoteIn, VoteInByDir

DESCRIPTION = """\
Sign up at `POST /users`, sign in at `POST /login`, and send the `access_token` as `Authorization: Bearer …`.

- Every error has the same shape, `Problem`. Its `code` never changes; its `detail` may.
- Every response has an `X-Request-ID`, which is also in the server's log.
- Paths work with and without a trailing slash, and also below `/v1`.
- `RateLimit` and `RateLimit-Policy` say how many requests are left, and for how many seconds. So do
  `X-RateLimit-Limit`, `-Remaining` and `-Reset` (in seconds since 1970).
- Unknown query parameters, and unknown fields of a body, are ignored.
"""
CONTACT = {"name": "The operator of this server"}
LICENSE = {"name": "MIT", "identifier": "MIT"}
# FastAPI adds a server for a path prefix (`ROOT_PATH`, `/v1`) before it.
SERVERS = [{"url": "/", "description": "The server that this document comes from."}]
# In the order of the documentation pages.
TAGS = {
    "authentication": "Sign in and out, two-factor authentication, forgotten passwords, e-mail verification.",
    "users": "Accounts and profiles.",
    "posts": "Read, write, change and delete posts.",
    "votes": "Vote for posts.",
    "comments": "Read, write, change and delete comments, and vote for them.",
    "tags": "List the tags of posts, and follow them.",
    "feeds": "Read the newest posts in a feed reader, as Atom.",
    "people": "Follow and block users, and read what you follow.",
    "bookmarks": "Bookmark posts.",
    "media": "Upload pictures, for posts and as your avatar.",
    "notifications": "List, count and mark your notifications, and mute posts.",
    "live": "Get votes, comments, posts and notifications as they happen.",
    "moderation": "Report to moderators, and act as one.",
    "webhooks": "Have events sent to your programs.",
    "API keys": "Credentials for programs that act for you.",
    "meta": "Links to the documentation, and health checks.",
}
# Swagger UI's Authorize dialog shows them in this order: the password form first.
SECURITY_SCHEMES = (TOKEN_SCHEME, KEY_SCHEME)
# Every operation that accepts a Bearer token also accepts the cookie. FastAPI does not document it.
COOKIE = "SessionCookie"
COOKIE_SCHEME = {
    "type": "apiKey",
    "in": "cookie",
    "name": SESSION_COOKIE,
    "description": "Set by `POST /login?cookie=true`. Unsafe methods need a request from the API's own origin. "
    "In development, over plain HTTP, the cookie is named `session`.",
}
# Operations that do not use the database.
NEVER_READ = {"get_root", "get_livez", "get_sign_up_challenge"}
NEVER_LIMITED = {"get_livez", "get_readyz"}
# Described in the text of an operation, not as a parameter (docs/decisions/0025). Importers such as Postman's give each
# header parameter a fixed value. Then a second request would be refused, or only replay the first response.
IDEMPOTENCY_KEY = "Idempotency-Key"
LOGIN_FORM = "LoginForm"
# Query parameters of operations that use `read_query`. Defaults come from the settings, so they are added here.
QUERIES: dict[str, type[BaseModel]] = {
    "list_posts": PageParameters, "get_home": HomeParameters, "list_comments": ThreadParameters,
}  # fmt: skip
# Schemas for clients, in place of FastAPI's.
REQUEST_BODIES: dict[str, dict[str, Any]] = {
    "login": {"$ref": SCHEMA_REFERENCE.format(model=LOGIN_FORM)},
    "cast_vote": {
        "anyOf": [{"$ref": SCHEMA_REFERENCE.format(model=model.__name__)} for model in (VoteIn, VoteInByDir)]
    },
}
# Descriptions in place of FastAPI's "Successful Response".
SUCCESSES = {"200": "OK", "201": "Created", "202": "Accepted", "204": "No content"}
_SENTENCE = re.compile(r"(.+?)\.(?:\s+|\Z)", re.DOTALL)


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` return the complete document."""

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
        contact=CONTACT,
        license_info=LICENSE,
        servers=SERVERS,
        tags=[{"name": name, "description": description} for name, description in TAGS.items()],
        routes=app.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    components = document["components"]
    schemas = _schemas(components["schemas"])
    shared = response_components()
    for path in document["paths"].values():
        for method, operation in path.items():
            _split_docstring(operation)
            _add_query(operation)
            _describe_credentials(operation, is_safe=method.upper() in SAFE_METHODS)
            _describe_errors(operation, is_safe=method.upper() in SAFE_METHODS)
            _describe_links(operation)
            _describe_parameters(operation)
            _describe_body(operation, schemas)
            operation["responses"] = _without_repetitions(operation["responses"], shared)
    _require_what_is_always_there(document["paths"], schemas)
    schemes = components["securitySchemes"]
    components["securitySchemes"] = {name: schemes[name] for name in SECURITY_SCHEMES} | {COOKIE: COOKIE_SCHEME}
    components |= {"schemas": schemas, "responses": shared, "headers": RESPONSE_HEADERS, "examples": examples()}
    return document


def _schemas(known: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's schemas, and those of errors and of parameters it does not see."""
    models: tuple[type[BaseModel], ...] = (Problem, ValidationProblem, *QUERIES.values(), VoteInByDir)
    _, more = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMA_REFERENCE)
    schemas = known | more["$defs"]
    schemas[LOGIN_FORM] = schemas.pop("Body_login") | {"description": "The form of OAuth 2.0's password flow."}
    for unused in ("HTTPValidationError", *(query.__name__ for query in QUERIES.values())):
        schemas.pop(unused, None)
    for schema in schemas.values():
        _remove_titles(schema)
    return dict(sorted(schemas.items()))


def _remove_titles(schema: dict[str, Any]) -> None:
    """Remove the titles that Pydantic makes from names.

    They only repeat the names, and generators would name types after them.
    """
    schema.pop("title", None)
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    for each in inner:
        _remove_titles(each)


def _add_query(operation: dict[str, Any]) -> None:
    if query := QUERIES.get(operation["operationId"]):
        operation["parameters"] = query_parameters(query) + operation.get("parameters", [])


def _describe_parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.pop("parameters", ()):
        if parameter["name"] == IDEMPOTENCY_KEY:
            note = f"`{IDEMPOTENCY_KEY}` header: {parameter['description']}"
            operation["description"] = f"{operation['description']}\n\n{note}".lstrip()
        else:
            _simplify(parameter)
            operation.setdefault("parameters", []).append(parameter)


def _simplify(parameter: dict[str, Any]) -> None:
    """Describe a parameter once, and not as nullable.

    An optional parameter of a URL or header is left out, and never `null`.
    """
    schema = parameter["schema"]
    if schema.get("default", "") is None:
        del schema["default"]
    for choice in schema.pop("anyOf", ()):
        schema |= {} if choice == {"type": "null"} else choice
    parameter.setdefault("description", schema.get("description"))
    schema.pop("description", None)
    _remove_titles(schema)


def _require_what_is_always_there(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Make every field of a response required.

    Pydantic does not count fields with defaults as required, but responses always have them.
    """
    bodies = json.dumps([operation.get("requestBody") for path in paths.values() for operation in path.values()])
    for name, schema in schemas.items():
        is_sent = f'"{SCHEMA_REFERENCE.format(model=name)}"' in bodies
        if "properties" in schema and not is_sent and name != ValidationProblem.__name__:
            schema["required"] = [*schema["properties"]]


def _split_docstring(operation: dict[str, Any]) -> None:
    """Make the first sentence the summary, and the rest the description."""
    if sentence := _SENTENCE.match(operation.get("description", "")):
        operation["summary"] = " ".join(sentence[1].split())
        operation["description"] = operation["description"][sentence.end() :]


def _describe_credentials(operation: dict[str, Any], *, is_safe: bool) -> None:
    if "security" not in operation:
        operation["security"] = []
        return
    takes_keys = {KEY_SCHEME: []} in operation["security"]
    if takes_keys:
        operation["security"].insert(0, {TOKEN_SCHEME: []})  # Access tokens may do everything that API keys may.
    operation["security"].append({COOKIE: []})
    if not is_safe:
        _declare(operation, CrossSiteRequest)
    if "401" not in operation["responses"]:
        operation["security"].insert(0, {})  # The token is optional.
    elif not (takes_keys and is_safe):
        _declare(operation, InsufficientScope)


def _describe_errors(operation: dict[str, Any], *, is_safe: bool) -> None:
    if not is_safe:
        _declare(operation, ConstraintViolated)
    if operation["operationId"] not in NEVER_READ:
        _declare(operation, Unavailable)
    if operation["operationId"] not in NEVER_LIMITED:
        _declare(operation, RateLimited)
    if "requestBody" in operation:
        _declare(operation, BodyTooLarge, UnsupportedEncoding)
    if "requestBody" in operation or "parameters" in operation:
        _declare(operation, VALIDATION_FAILED)
    _declare(operation, InvalidHost, UriTooLong, HeadersTooLarge, INTERNAL_ERROR)


def _declare(operation: dict[str, Any], *errors: type[DomainError] | DocumentedError) -> None:
    """Add the errors to the responses of the operation."""
    declared = operation["responses"]
    for error in errors:
        added = error if isinstance(error, DocumentedError) else documented(error)
        response = response_reference(added)
        known = declared.get(str(added.status), {})
        if "$ref" in known:
            response["description"] = f"{known['description']}; {response['description']}"
        declared[str(added.status)] = response


def _describe_links(operation: dict[str, Any]) -> None:
    """Add the `Link` header to operations that are paged by cursors."""
    if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
        for status in {"200", "304"} & set(operation["responses"]):
            operation["responses"][status].setdefault("headers", {}).update(headers("Link")["headers"])


def _describe_body(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add an example of the body: its required fields, or else its first field."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content["schema"] = schema = REQUEST_BODIES.get(operation["operationId"], content["schema"])
        model = _resolved(schema.get("anyOf", [schema])[0], schemas)
        names = model.get("required") or [*model.get("properties", ())][:1]
        example = {name: _example(_resolved(model["properties"][name], schemas)) for name in names}
        if "examples" in model:  # Its required fields are not enough.
            (example,) = model.pop("examples")
        if example and None not in example.values():
            content["example"] = example


def _example(schema: dict[str, Any]) -> object:
    """Return the first example of a value, or None."""
    choices = (schema, *schema.get("anyOf", ()))
    return next((choice["examples"][0] for choice in choices if "examples" in choice), None)


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return resolved


def _without_repetitions(responses: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return the responses by status, without repeated descriptions.

    A reference has its own description only if the operation cannot have all errors of the status.
    """
    shared_descriptions = {response["description"] for response in shared.values()}
    for status, response in responses.items():
        if status in SUCCESSES:
            response["description"] = SUCCESSES[status]
        if "$ref" in response and response["description"] in shared_descriptions:
            del response["description"]
        elif "content" in response:
            for content in response["content"].values():
                _remove_titles(content.get("schema", {}))
    return dict(sorted(responses.items()))
