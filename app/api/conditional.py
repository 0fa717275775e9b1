"""Conditional requests: ETags, 304 responses, and `If-Match` for single posts and comments."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from app.api.responses import Json
from app.middleware.headers import header
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
PRIVATE = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization, Cookie, X-API-Key, Accept"))
LARGEST_VERSION = 2**31 - 1


def respond_with_post(request: Request, result: PageResponse) -> Response:
    """Respond with the post, or with 304 if the client has it."""
    return respond(request, f"{result.page.rows[0].version}-{result.etag}", lambda: result.json)


def respond(request: Request, etag: str, body: Callable[[], bytes], *more: tuple[bytes, bytes]) -> Response:
    headers = [*PRIVATE, (b"etag", b'"%s"' % etag.encode()), *more]
    if not _has(request, etag):
        return Json(body(), headers=headers)
    response = Response(status_code=304)
    response.raw_headers += headers
    return response


def _has(request: Request, etag: str) -> bool:
    wanted = header(request.scope, b"if-none-match").decode("latin-1")
    return wanted.strip() == "*" or etag in _ETAG.findall(wanted)


# Proxies that compress a response mark its ETag as weak, with `W/`.
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """Return the versions that `If-Match` allows, or None for any.

    The ETag of a post begins with its version. The rest changes with votes and is ignored, because a vote must not
    prevent an edit. Weak ETags count, too: RFC 9110 (13.1.1) excludes them because their bytes may differ, but this
    compares versions. The result is empty if no version can match. Then the request is refused, because the post is
    missing, another user's, or changed; these are checked in this order.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(
        int(version)
        for tag in _ETAG.findall(if_match)
        if re.fullmatch(r"[0-9]{1,10}", version := tag.partition("-")[0]) and int(version) <= LARGEST_VERSION
    )
