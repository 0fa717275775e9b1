"""No more requests in hand than a worker can answer soon: the others are refused at once, not left to wait."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Overloaded
from app.problems import problem_response

# They cost next to nothing, and say how things are when things are bad.
ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/metrics"})


class Admission:
    """Refuses with 503 and `Retry-After` while `most` requests are in hand."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self.app = app
        self.most = most
        self.in_hand_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ADMITTED:
            await self.app(scope, receive, send)
            return
        if self.in_hand_count >= self.most:
            error = Overloaded()
            await problem_response(scope, error.status, error.code, error.detail, error.headers)(scope, receive, send)
            return
        self.in_hand_count += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_hand_count -= 1
