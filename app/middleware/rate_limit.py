"""How many requests one caller may make, whatever they are: counted in memory, by each worker for itself.

Limits that keep guessing slow are app/limits.py's: shared by all workers, and kept.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import context
from app.errors import RateLimited
from app.problems import refusal

WINDOW_SECONDS = 60
# A window takes some 400 bytes with its caller, so all take at most 8 MB.
MOST_CALLERS = 20_000
# Concurrent requests of one caller, per worker: an HTTP/2 connection has up to 100 streams. A request counts until its
# answer is sent, so that a caller that does not read its answers holds a bounded part of memory and of MAX_IN_FLIGHT.
MAX_IN_HAND = 100
EXEMPT_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
HEADERS = ("RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@dataclass(slots=True)
class _Window:
    ends_at: float
    left: int


class RateLimit:
    """At most `per_minute` requests in each minute, which begins with the caller's first; past it 429.

    A caller is the user whose good token the request carries, and else its address: a token that nobody verified opens
    no new window. Around the end of a minute a caller may make twice as many, as with a token bucket of that size; in
    return, what the headers say (draft-ietf-httpapi-ratelimit-headers-11) is exact: so many are left, for so long.
    `X-RateLimit-Reset` is in seconds since 1970.

    A caller that has `MAX_IN_HAND` requests under way is refused in the same way.

    The windows of `MOST_CALLERS` are kept; with more, those that began first are forgotten.
    """

    def __init__(self, app: ASGIApp, *, per_minute: int, user_of: Callable[[Scope], int | None]) -> None:
        self.app = app
        self.per_minute = per_minute
        self.user_of = user_of
        self.windows: OrderedDict[Hashable, _Window] = OrderedDict()  # In the order of their ends.
        self.in_hand: dict[Hashable, int] = {}
        self.constant_headers = (
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (per_minute, WINDOW_SECONDS)),
            (b"x-ratelimit-limit", b"%d" % per_minute),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) in EXEMPT_PATHS:
            await self.app(scope, receive, send)
            return
        now = time.monotonic()
        caller = self._caller(scope)
        window = self._window(caller, now)
        seconds_left = math.ceil(window.ends_at - now)
        in_hand = self.in_hand.get(caller, 0)
        if window.left == 0 or in_hand >= MAX_IN_HAND:
            response = refusal(scope, RateLimited(seconds_left if window.left == 0 else 1))
            response.raw_headers += self._headers(window.left, seconds_left)
            await response(scope, receive, send)
            return
        window.left -= 1
        headers = self._headers(window.left, seconds_left)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += headers
            await send(message)

        scope.setdefault("state", {})["caller"] = caller  # The server bounds what waits to be sent to one caller.
        self.in_hand[caller] = in_hand + 1
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if self.in_hand[caller] == 1:
                del self.in_hand[caller]
            else:
                self.in_hand[caller] -= 1

    def _caller(self, scope: Scope) -> Hashable:
        return self.user_of(scope) or context.network_of(context.client_address.get() or "")

    def _window(self, caller: Hashable, now: float) -> _Window:
        window = self.windows.get(caller)
        if window is None or window.ends_at <= now:
            self.windows.pop(caller, None)
            if len(self.windows) >= MOST_CALLERS:
                self.windows.popitem(last=False)
            window = self.windows[caller] = _Window(now + WINDOW_SECONDS, self.per_minute)
        return window

    def _headers(self, left: int, seconds_left: int) -> list[tuple[bytes, bytes]]:
        """`HEADERS`, as ASGI has them."""
        return [
            (b"ratelimit", b'"default";r=%d;t=%d' % (left, seconds_left)),
            *self.constant_headers,
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % (time.time() + seconds_left)),
        ]
