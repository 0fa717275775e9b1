"""Limits of request heads, equal with and without a proxy in front of the server."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import DomainError, HeadersTooLarge, InvalidHost, UriTooLong
from app.middleware.problem_details import problem_response

# Enough for a percent-encoded search of 500 characters and the longest cursor.
MAX_TARGET_BYTES = 16 * 1024
MAX_HEADER_BYTES = 32 * 1024


class HeadLimit:
    """Refuse a path and query past 16 KB with 414, headers past 32 KB with 431.

    A request without `Host`, or with two, is 400, because caches and proxies may assign it to another site.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _excess(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
            return
        response = problem_response(scope, error.status, error.code, error.detail, {"Connection": "close"})
        await response(scope, receive, send)


def _excess(scope: Scope) -> DomainError | None:
    if len(scope["path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return UriTooLong()
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HeadersTooLarge()
    hosts = [name for name, _ in scope["headers"]].count(b"host")
    if hosts > 1 or (hosts == 0 and scope["http_version"] != "1.0"):  # RFC 9112, 3.2
        return InvalidHost()
    return None
