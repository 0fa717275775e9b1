"""Load shedding: refuse requests at once when a worker has too many."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Overloaded
from app.middleware.problem_details import refusal

# Cheap, and needed for monitoring under overload.
NEVER_SHED = frozenset({"/livez", "/readyz", "/metrics"})
RETRY_AFTER_SECONDS = float(Overloaded.headers["Retry-After"])
# Each takes about 15 KB.
MAX_HELD_CLIENTS = 1_000
# An entry takes about 300 bytes: at most 6 MB.
MAX_RETURN_TIMES = 20_000

# Address and port identify a connection. Behind a trusted proxy, only the address is known.
_Client = tuple[str, int]


class LoadShedding:
    """Refuse requests with 503 while `max_in_flight` are in progress.

    A refusal has `Retry-After`. A client that retries before `Retry-After` is over is held for the rest of that time,
    and then admitted if there is room. Otherwise refusing clients that never wait would take all the time needed for
    the other requests.
    """

    def __init__(self, app: ASGIApp, *, max_in_flight: int) -> None:
        self.app = app
        self.max_in_flight = max_in_flight
        self.in_hand_count = 0
        self.held_count = 0
        self.return_times: dict[_Client | None, float] = {}  # In ascending order.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NEVER_SHED:
            await self.app(scope, receive, send)
            return
        if self.in_hand_count >= self.max_in_flight and not await self._gets_room(scope.get("client")):
            await refusal(scope, Overloaded())(scope, receive, send)
            return
        self.in_hand_count += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_hand_count -= 1

    async def _gets_room(self, client: _Client | None) -> bool:
        """Hold a client that retries early.

        Return whether there is room then; if not, note its return time.
        """
        clock = asyncio.get_running_loop().time
        self._forget_until(clock())
        early_seconds = self.return_times.pop(client, 0) - clock()
        if early_seconds > 0 and self.held_count < MAX_HELD_CLIENTS:
            self.held_count += 1
            try:
                await asyncio.sleep(early_seconds)
            finally:
                self.held_count -= 1
            if self.in_hand_count < self.max_in_flight:
                return True
        if len(self.return_times) >= MAX_RETURN_TIMES:
            del self.return_times[next(iter(self.return_times))]
        self.return_times[client] = clock() + RETRY_AFTER_SECONDS
        return False

    def _forget_until(self, now: float) -> None:
        while self.return_times:
            client, return_time = next(iter(self.return_times.items()))
            if return_time > now:
                break
            del self.return_times[client]
