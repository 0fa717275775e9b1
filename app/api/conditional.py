"""Conditional requests: ETags, 304 responses, and `If-Match` for single posts and comments."""

import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from app.api.authentication import is_public_read
from app.api.responses import Json, Serialized
from app.middleware.headers import header
from app.middleware.problem_details import headers
from app.services.feed import PageResponse

IfMatch = Annotated[
    str | None,
    Header(description="The `ETag` that you read. If it has changed since, the answer is 412."),
]
# For the OpenAPI document only. The header is read directly, which costs nothing in requests without it.
IF_NONE_MATCH: dict[str, Any] = {
    "name": "if-none-match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "An `ETag` from an earlier response. If nothing has changed, the answer is 304 without a body.",
}
# Responses are personal: browsers may store them, but must revalidate them each time.
_VARY = (b"vary", b"Authorization, Cookie, X-API-Key, Accept")
PRIVATE = ((b"cache-control", b"private, no-cache"), _VARY)
# Without credentials they are the same for everyone, and caches may share them.
PUBLIC = ((b"cache-control", b"public, max-age=5, stale-while-revalidate=30"), _VARY)
LARGEST_VERSION = 2**31 - 1
# For the OpenAPI document.
CONDITIONAL: dict[int | str, dict[str, Any]] = {
    200: headers("ETag"),
    304: {"description": "Not modified", **headers("ETag")},
}


def respond_with_post(request: Request, result: PageResponse) -> Response:
    """Respond with the post, or with 304 if the client has it."""
    return respond(request, f"{result.page.rows[0].version}-{result.etag}", lambda: result.json)


def respond(
    request: Request,
    etag: str,
    body: Callable[[], bytes],
    *more: tuple[bytes, bytes],
    response_class: type[Serialized] = Json,
) -> Response:
    """Respond with the body, or with 304 if the client has it."""
    raw_headers = [*(PUBLIC if is_public_read(request) else PRIVATE), (b"etag", b'"%s"' % etag.encode()), *more]
    if not _has(request, etag):
        return response_class(body(), headers=raw_headers)
    response = Response(status_code=304)
    response.raw_headers += raw_headers
    return response


def publish(request: Request, response: Response) -> Response:
    """Let caches share the response to a request without credentials.

    It gets an ETag of its body, or becomes a 304 if the client has that.
    """
    if response.status_code != 200 or "etag" in response.headers:
        return response
    etag = hashlib.blake2b(bytes(response.body), digest_size=8).hexdigest()
    response.raw_headers += [*PUBLIC, (b"etag", b'"%s"' % etag.encode())]
    if not _has(request, etag):
        return response
    unchanged = Response(status_code=304)
    unchanged.raw_headers += [(name, value) for name, value in response.raw_headers if not name.startswith(b"content-")]
    return unchanged


def _has(request: Request, etag: str) -> bool:
    wanted = header(request.scope, b"if-none-match").decode("latin-1")
    return wanted.strip() == "*" or etag in _ETAG.findall(wanted)


# Proxies that compress a response mark its ETag as weak, with `W/`.
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
# `If-Match: 2` means `"2"`: its quotes get lost in shells and in clients written by hand.
_UNQUOTED = re.compile(r"[0-9]+(?:-[0-9a-z]+)?")


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """Return the versions that `If-Match` allows, or None for any.

    The ETag of a post begins with its version. The rest changes with votes and is ignored, because a vote must not
    prevent an edit. One without quotes counts, too. So do weak ETags: RFC 9110 (13.1.1) excludes them because their
    bytes may differ, but this compares versions. The result is empty if no version can match. Then the request is
    refused, because the post is missing, another user's, or changed; these are checked in this order.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    unquoted = _UNQUOTED.fullmatch(if_match.strip())
    return frozenset(
        int(version)
        for tag in ([unquoted[0]] if unquoted else _ETAG.findall(if_match))
        if re.fullmatch(r"[0-9]{1,10}", version := tag.partition("-")[0]) and int(version) <= LARGEST_VERSION
    )
