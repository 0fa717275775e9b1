"""The outermost middleware: a request id, and one line in the log."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import context

logger = logging.getLogger("app.access")

ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
QUIET_PATHS = frozenset({"/livez", "/readyz"})


def header(scope: Scope, name: bytes) -> bytes:
    """The value of the request's first header of this name; empty where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


class RequestContext:
    """Gives every request an id (`X-Request-ID`, taken over where it is well-formed), and logs its outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        request_id = given.decode() if ACCEPTABLE_ID.fullmatch(given) else secrets.token_hex(16)
        # The state of the lifespan is shared by all requests; this one's is its own.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        context.request_id.set(request_id)
        context.client_address.set(scope["client"][0] if scope.get("client") else None)
        context.user_agent.set(header(scope, b"user-agent").decode("latin-1") or None)
        status = 0
        started_at = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
            if logger.isEnabledFor(level):
                milliseconds = (time.perf_counter() - started_at) * 1000
                # The path is quoted: no line break of a client's becomes one of the log's.
                logger.log(
                    level, "%s %r %s %.1fms %s", scope["method"], scope["path"], status or "-", milliseconds, request_id
                )  # fmt: skip
