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

    Uploads (`POST /media`), which are not held in memory, have a limit of their own. No route decompresses.
    With Content-Length, a large body is refused at once. Without it, as soon as more than `max_bytes` have arrived.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        encodings = {value.lower() for name, value in scope["headers"] if name == b"content-encoding"}
        if encodings - {b"", b"identity"}:
            await refusal(scope, UnsupportedEncoding())(scope, receive, send)
            return
        max_bytes = self.max_upload_bytes if is_upload(scope) else self.max_bytes
        declared = header(scope, b"content-length") or b"0"
        if not declared.isdigit() or int(declared[:20]) > max_bytes:
            error = _too_large(max_bytes)
            response = problem_response(scope, error.status, error.code, error.detail, {"Connection": "close"})
            await response(scope, receive, send)
            return
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > max_bytes:
                # While FastAPI reads a body, it re-raises only HTTPExceptions.
                raise HTTPException(BodyTooLarge.status, _too_large(max_bytes).detail, {"Connection": "close"})
            return message

        await self.app(scope, receive_limited, send)


def is_upload(scope: Scope) -> bool:
    """Return whether the request uploads a picture."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return scope["method"] == "POST" and path == "/media"


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {max_bytes} bytes")
