"""Limit of request bodies.

Starlette's own limit responds in plain text, before our error handlers.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, UnsupportedEncoding
from app.middleware.headers import header
from app.middleware.problem_details import problem_response, refusal


class BodyLimit:
    """Refuse compressed bodies with 415 and large bodies with 413.

    No route decompresses. With Content-Length, a large body is refused at once. Without it, as soon as more than
    `max_bytes` have arrived.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        encodings = {value.lower() for name, value in scope["headers"] if name == b"content-encoding"}
        if encodings - {b"", b"identity"}:
            await refusal(scope, UnsupportedEncoding())(scope, receive, send)
            return
        declared = header(scope, b"content-length") or b"0"
        if not declared.isdigit() or int(declared[:20]) > self.max_bytes:
            error = self._error()
            response = problem_response(scope, error.status, error.code, error.detail, {"Connection": "close"})
            await response(scope, receive, send)
            return
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self.max_bytes:
                # While FastAPI reads a body, it re-raises only HTTPExceptions.
                raise HTTPException(BodyTooLarge.status, self._error().detail, {"Connection": "close"})
            return message

        await self.app(scope, receive_limited, send)

    def _error(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than {self.max_bytes} bytes")
