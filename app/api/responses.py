"""Responses of routes: serialized JSON and Atom, and the `Location` header."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response


class Serialized(Response):
    """A response of bytes and raw ASGI headers, not encoded per request."""

    content_type = b"application/octet-stream"

    def __init__(self, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body)), (b"content-type", self.content_type)]


class Json(Serialized):
    """A response of serialized JSON."""

    content_type = b"application/json"


class Atom(Serialized):
    """A response of an Atom feed."""

    media_type = "application/atom+xml"  # For the OpenAPI document.
    content_type = b"application/atom+xml; charset=utf-8"


def relative_location(request: Request, path: str) -> str:
    """Return the `Location` of a path of this API, relative to the request's address.

    So it works with any prefix that a proxy strips, and below `/v1` if the request used that.
    """
    requested: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    has_slash: bool = (request.scope.get("raw_path") or b"").endswith(b"/")
    return "../" * (requested.count("/") - 1 + has_slash) + path.removeprefix("/")
