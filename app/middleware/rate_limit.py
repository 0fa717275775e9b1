"""Rate limits of all requests, per caller and worker, counted in memory.

Brute-force protection is in app/security/attempt_limits.py. Its limits hold across workers and restarts.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded, RateLimited
from app.middleware.problem_details import refusal
from app.observability import request_context

WINDOW_SECONDS = 60
# A window takes about 400 bytes with its caller: at most 8 MB.
MAX_CALLERS = 20_000
# Maximum concurrent requests of one caller, per worker: an HTTP/2 connection has up to 100 streams. A request counts
# until its response is sent, so that a caller that does not read its responses holds a bounded part of memory and of
# MAX_IN_FLIGHT.
MAX_IN_HAND = 100
# How many of them run at the same time for one account, per worker. The others wait for their turn. So an account has a
# bounded share of the batches, threads and connections, and at most this many expensive statements. A page or a vote
# takes some milliseconds, so a few at a time are as fast for a browser as all at once.
MAX_READS_OF_ACCOUNT = 4
MAX_WRITES_OF_ACCOUNT = 2
# Below the 30 s after which the proxies of deploy/ give up. A read waits at most for the time that it may take.
MAX_WAIT_SECONDS = 28.0
# A request whose body takes longer to arrive gives up its turn until the body is complete, because a client that never
# sends the rest must not block the account's other requests. A body that arrives in one packet keeps the turn.
MAX_BODY_SECONDS = 0.1
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
EXEMPT_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
# The files of the web client: a first visit loads about 40 of them from memory.
UNCOUNTED_PATHS = "/web/assets/"
HEADERS = ("RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@dataclass(slots=True)
class _Window:
    ends_at: float
    left: int


class _InHand:
    """The number of one caller's concurrent requests, and their semaphores."""

    __slots__ = ("count", "reads", "writes")

    def __init__(self) -> None:
        self.count = 0
        self.reads = asyncio.Semaphore(MAX_READS_OF_ACCOUNT)
        self.writes = asyncio.Semaphore(MAX_WRITES_OF_ACCOUNT)


class RateLimit:
    """Allow at most `per_minute` requests per caller in a fixed window; else 429.

    The window takes one minute and begins with the caller's first request. A caller is the user of the request's
    valid token, else the client's address. A token that was not verified does not open a new window. Around the end
    of a minute, a caller may make twice as many requests, as with a token bucket of that size. In return, the
    headers are exact (draft-ietf-httpapi-ratelimit-headers-11): the number of requests left, and the seconds until
    the window ends. `X-RateLimit-Reset` is in seconds since 1970.

    A caller with `MAX_IN_HAND` concurrent requests is refused in the same way. Of one account, at most
    `MAX_READS_OF_ACCOUNT` and `MAX_WRITES_OF_ACCOUNT` run at the same time, until their responses begin. The others
    wait in order of arrival, for at most `MAX_WAIT_SECONDS`, or `max_read_seconds` if that is less and they only read
    (then 503). A request gives up its turn while its body is late. Requests without a valid token do not wait for each
    other, because many people may share an address, and a slow one of them must not block the others.

    A WebSocket counts as one request. Files of the web client do not count, but are refused with the others at
    `MAX_IN_HAND`.

    The windows of `MAX_CALLERS` callers are kept. Past that number, the oldest window is dropped.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        per_minute: int,
        max_read_seconds: float = MAX_WAIT_SECONDS,
        user_of: Callable[[Scope], int | None],
    ) -> None:
        self.app = app
        self.per_minute = per_minute
        self.max_read_seconds = min(max_read_seconds, MAX_WAIT_SECONDS)
        self.user_of = user_of
        self.windows: OrderedDict[Hashable, _Window] = OrderedDict()  # In the order of their ends.
        self.in_hand: dict[Hashable, _InHand] = {}
        self.constant_headers = (
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (per_minute, WINDOW_SECONDS)),
            (b"x-ratelimit-limit", b"%d" % per_minute),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_request = scope["type"] in {"http", "websocket"}
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if not is_request or path in EXEMPT_PATHS:
            await self.app(scope, receive, send)
            return
        now = time.monotonic()
        caller = self._caller(scope)
        window = self._window(caller, now)
        seconds_left = math.ceil(window.ends_at - now)
        in_hand = self.in_hand.get(caller)
        is_counted = not path.startswith(UNCOUNTED_PATHS)
        is_over = is_counted and window.left == 0
        if is_over or (in_hand is not None and in_hand.count >= MAX_IN_HAND):
            response = refusal(scope, RateLimited(seconds_left if is_over else 1))
            response.raw_headers += self._headers(window.left, seconds_left)
            await response(scope, receive, send)
            return
        window.left -= is_counted
        headers = self._headers(window.left, seconds_left)
        scope.setdefault("state", {})["caller"] = caller  # The server limits the unsent bytes of each caller.
        if scope["type"] == "websocket":  # Its messages have limits of their own.
            await self.app(scope, receive, send)
            return
        if in_hand is None:
            in_hand = self.in_hand[caller] = _InHand()
        in_hand.count += 1
        turn = None
        if isinstance(caller, int):
            turn = (
                _Turn(in_hand.reads, receive, self.max_read_seconds)
                if scope["method"] in SAFE_METHODS
                else _Turn(in_hand.writes, receive, MAX_WAIT_SECONDS)
            )
        try:
            await self._run(scope, receive, send, headers, turn)
        finally:
            in_hand.count -= 1
            if not in_hand.count:
                del self.in_hand[caller]

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        turn: "_Turn | None",
    ) -> None:
        """Run the application in the request's turn.

        The turn ends when the response begins.
        """
        if turn is not None and not await turn.take():
            response = refusal(scope, Overloaded())
            response.raw_headers += headers
            await response(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += headers
                if turn is not None:
                    turn.end()
            await send(message)

        if turn is None:
            await self.app(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, turn.receive, send_with_headers)
        finally:
            turn.end()

    def _caller(self, scope: Scope) -> Hashable:
        return self.user_of(scope) or request_context.network_of(request_context.client_address.get() or "")

    def _window(self, caller: Hashable, now: float) -> _Window:
        window = self.windows.get(caller)
        if window is None or window.ends_at <= now:
            self.windows.pop(caller, None)
            if len(self.windows) >= MAX_CALLERS:
                self.windows.popitem(last=False)
            window = self.windows[caller] = _Window(now + WINDOW_SECONDS, self.per_minute)
        return window

    def _headers(self, left: int, seconds_left: int) -> list[tuple[bytes, bytes]]:
        """The values of `HEADERS` in ASGI's form."""
        return [
            (b"ratelimit", b'"default";r=%d;t=%d' % (left, seconds_left)),
            *self.constant_headers,
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % (time.time() + seconds_left)),
        ]


class _Turn:
    """The turn of one request.

    It is given up while the body is late, and taken again afterwards.
    """

    __slots__ = ("has_ended", "is_held", "is_whole", "late", "max_wait_seconds", "receive_message", "turns")

    def __init__(self, turns: asyncio.Semaphore, receive: Receive, max_wait_seconds: float) -> None:
        self.turns = turns
        self.max_wait_seconds = max_wait_seconds
        self.receive_message = receive
        self.is_held = self.is_whole = self.has_ended = False
        self.late: asyncio.TimerHandle | None = None

    async def take(self) -> bool:
        """Wait for the turn; return False if that takes longer than `max_wait_seconds`."""
        if not self.turns.locked():  # asyncio.timeout would cost each request more than the rest of this middleware.
            self.is_held = await self.turns.acquire()
            return True
        try:
            async with asyncio.timeout(self.max_wait_seconds):
                self.is_held = await self.turns.acquire()
        except TimeoutError:
            return False
        return True

    async def receive(self) -> Message:
        """Receive the next message.

        Raises `HTTPException` (503) if the turn does not come again in time.
        """
        if self.is_whole:
            return await self.receive_message()
        if self.late is None:
            self.late = asyncio.get_running_loop().call_later(MAX_BODY_SECONDS, self._give_up)
        message = await self.receive_message()
        if not message.get("more_body", False):
            self.is_whole = True
            self.late.cancel()
            if not self.is_held and not self.has_ended and not await self.take():
                # While FastAPI reads a body, it re-raises only HTTPExceptions.
                raise HTTPException(Overloaded.status, Overloaded().detail, dict(Overloaded.headers))
        return message

    def end(self) -> None:
        """End the turn for good."""
        self.has_ended = True
        if self.late is not None:
            self.late.cancel()
        self._give_up()

    def _give_up(self) -> None:
        if self.is_held:
            self.is_held = False
            self.turns.release()
