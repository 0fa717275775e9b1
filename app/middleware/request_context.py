"""Request id, access log, slow-request log and request metrics."""

import logging
import math
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.headers import header
from app.observability import metrics, query_log, request_context

logger = logging.getLogger("app.access")
slow_logger = logging.getLogger("app.slow")

ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# An IPv6 address takes about 40. Addresses are stored in many places, and a proxy may pass on any text as one.
MAX_ADDRESS_CHARACTERS = 64
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})


class RequestContext:
    """Assign a request id, count the request and log its outcome.

    A well-formed `X-Request-ID` of the client is kept. A request that took longer than `slow_seconds` is logged with
    its database statements. The time of a stream is the time until it began. With `shows_timing`, `Server-Timing` has
    the time until the response began, and the part of it for which the request waited for the database
    (https://www.w3.org/TR/server-timing/).
    """

    def __init__(self, app: ASGIApp, *, slow_seconds: float = math.inf, shows_timing: bool = False) -> None:
        self.app = app
        self.slow_seconds = slow_seconds
        self.shows_timing = shows_timing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        request_id = given.decode() if ACCEPTABLE_ID.fullmatch(given) else secrets.token_hex(16)
        # All requests share the state of the lifespan, so give this request its own copy.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        request_context.request_id.set(request_id)
        if scope.get("client"):
            host, port = scope["client"]
            scope["client"] = host[:MAX_ADDRESS_CHARACTERS], port
        request_context.client_address.set(scope["client"][0] if scope.get("client") else None)
        request_context.user_agent.set(header(scope, b"user-agent").decode("latin-1") or None)
        asked = query_log.begin()
        status = 0
        started_at = time.monotonic()
        request_context.arrived_at.set(started_at)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
                if self.shows_timing:
                    message["headers"].append((b"server-timing", _timing(time.monotonic() - started_at, asked)))
            elif message["type"] in {"websocket.accept", "websocket.http.response.start"}:
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            seconds = time.monotonic() - started_at
            route = getattr(scope.get("route"), "path", None)
            method = scope.setdefault("method", "GET")  # The handshake of a WebSocket.
            metrics.request(method, route, status, seconds)
            _log(scope, route, status, seconds)
            if seconds > self.slow_seconds:
                _log_slow(scope, route, status, seconds, asked)


def _timing(seconds: float, asked: query_log.QueryLog) -> bytes:
    database = f'database;dur={asked.seconds * 1000:.1f};desc="{asked.statement_count} statements"'
    return f"total;dur={seconds * 1000:.1f}, {database}".encode()


def _log(scope: Scope, route: str | None, status: int, seconds: float) -> None:
    level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
    if logger.isEnabledFor(level):
        # The path is quoted, so that its line breaks do not reach the log.
        logger.log(
            level,
            "%s %r %s %.1fms",
            scope["method"],
            scope["path"],
            status or "-",
            seconds * 1000,
            extra=_facts(scope, route, status, seconds),
        )


def _log_slow(scope: Scope, route: str | None, status: int, seconds: float, asked: query_log.QueryLog) -> None:
    slow_logger.warning(
        "slow: %s %r %s %.1fms: %s",
        scope["method"],
        scope["path"],
        status or "-",
        seconds * 1000,
        asked,
        extra=_facts(scope, route, status, seconds),
    )


def _facts(scope: Scope, route: str | None, status: int, seconds: float) -> dict[str, object]:
    """The additional fields of a JSON log line."""
    return {
        "method": scope["method"],
        "path": scope["path"],
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "client": request_context.client_address.get(),
    }
