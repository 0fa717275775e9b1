"""Assertions about answers: refused in the usual shape, or as the OpenAPI document declares."""

import json
import re
from typing import Any

import httpx2

from app.main import app

PROBLEM_KEYS = {"detail", "code", "request_id", "type", "title", "status"}
DOCUMENT: dict[str, Any] = app.api.openapi()
PATHS: dict[str, Any] = DOCUMENT["paths"]
# Headers that no two answers share.
OF_EACH_REQUEST = {"x-request-id", "server-timing", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset"}
# The routes outside the document: aliases, the documentation and its assets.
ALIASES = {"/token": "/login", "/votes": "/vote"}


def assert_refused(response: httpx2.Response, status: int, code: str, detail: str | None = None) -> None:
    """Assert that the answer is a problem with this status and code.

    It has the shape of all errors, and this sentence if one is given.
    """
    assert response.status_code == status, response.text
    body = json.loads(response.content.decode("utf-8"))
    assert set(body) == PROBLEM_KEYS
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:social-posts:problem:{code}"
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["Content-Type"] == "application/json"
    if detail is not None:
        assert body["detail"] == detail


def assert_unauthenticated(response: httpx2.Response) -> None:
    """Assert that it is 401, and whether a credential was missing or refused."""
    refused, missing = "Could not validate credentials", "Not authenticated"
    assert_refused(response, 401, "not_authenticated")
    detail = response.json()["detail"]
    if "cookie" in response.request.headers:  # Of which name the cookie counts, test_plain_http.py tests.
        assert detail in {refused, missing}
    else:
        assert detail == (refused if _has_credential(response.request) else missing)
    assert response.headers["WWW-Authenticate"] == "Bearer"


def _has_credential(request: httpx2.Request) -> bool:
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    is_refresh = request.url.path.endswith("/token/refresh")  # The credential is the body.
    return scheme.lower() == "bearer" or "x-api-key" in request.headers or is_refresh


def assert_documented(response: httpx2.Response) -> None:
    """Assert that the OpenAPI document declares this status for the operation.

    No error may be a 5xx or cached.
    """
    status, request = response.status_code, response.request
    assert status < 500, f"{request.method} {request.url}: {response.read()[:500]!r}"
    assert response.headers["X-Request-ID"]
    assert "location" not in response.headers or status == 201
    if status >= 400:
        assert response.headers["Cache-Control"] == "no-store"
        if request.method != "HEAD":
            assert json.loads(response.read())["status"] == status
    elif response.headers.get("content-type") == "application/json" and (content := response.read()):
        body = json.loads(content)
        texts = (
            {name for name, value in body.items() if isinstance(value, str | list)} if isinstance(body, dict) else ()
        )
        if any(re.search("token|secret|codes|^key$", name) for name in texts):
            assert response.headers["Cache-Control"] == "no-store", "credentials are not to be kept on the way"
    operation = operation_of(request.method, request.url.path)
    if operation is not None:
        assert str(status) in operation["responses"], f"{request.method} {request.url.path} may not answer {status}"


def resolved(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a response of the document, or the one that it refers to.

    A reference's own description replaces that of the response.
    """
    if "$ref" not in answer:
        return answer
    component: dict[str, Any] = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return component | {name: value for name, value in answer.items() if name != "$ref"}


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """Return what the OpenAPI document says of the operation; None for what is not in it."""
    path = (path.removeprefix("/v1").removesuffix("/")) or "/"
    path = ALIASES.get(path, path)
    templates = sorted(PATHS, key=lambda template: template.count("{"))
    for template in templates:
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            operation: dict[str, Any] | None = PATHS[template].get("get" if method == "HEAD" else method.lower())
            if operation is not None:
                return operation
    return None
