"""ETags: 304 where the client has the answer; and for single posts `If-Match`."""

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from app.api.fast_path import Json
from app.middleware.headers import header
from app.services.feed import PageResponse

# The answer is the caller's own, and may be kept, but asked for again each time.
PRIVATE = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization, Cookie, X-API-Key, Accept"))
LARGEST_VERSION = 2**31 - 1


def respond_with_post(request: Request, reading: PageResponse) -> Response:
    """200 with the one post, or 304 where the client has it."""
    return respond(request, f"{reading.page.rows[0].version}-{reading.etag}", lambda: reading.json)


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


# Proxies that compress an answer mark its ETag as weak, by `W/`.
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """The versions that `If-Match` allows; None: any. An ETag of a post begins with its version.

    The rest of the ETag, which changes with votes, is left aside: a vote must not stop an edit. Weak ETags count, too:
    RFC 9110 (13.1.1) excludes them because their bytes may differ, and here versions are compared, not bytes.
    Empty if no version can match. Then the post is missing, of another owner, or changed, in this order.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(
        int(version)
        for tag in _ETAG.findall(if_match)
        if re.fullmatch(r"[0-9]{1,10}", version := tag.partition("-")[0]) and int(version) <= LARGEST_VERSION
    )
