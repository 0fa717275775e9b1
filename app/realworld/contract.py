"""The middleware that gives requests under `/api` the form of this project, and their errors that of RealWorld."""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.headers import header
from app.middleware.path_aliases import VERSION_PREFIX
from app.realworld import PREFIX
from app.realworld.errors import translate

# Credentials of the main API. A page of another site could send the cookie, and frontends of RealWorld send neither.
_OTHER_CREDENTIALS = frozenset({b"cookie", b"x-api-key"})


class RealWorldContract:
    """Accept `Authorization: Token …`, and translate problem responses.

    It is outside of the limits, so that they count a request for its account, and so that their refusals are
    translated, too. It is inside of CORS, so that browsers can read every error.
    """

    def __init__(self, app: ASGIApp, *, root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_served(scope["path"]):
            await self.app(scope, receive, send)
            return
        path, has_token = scope["path"], header(scope, b"authorization") != b""
        scope["headers"] = [
            (name, _as_bearer(value) if name == b"authorization" else value)
            for name, value in scope["headers"]
            if name not in _OTHER_CREDENTIALS
        ]
        held: Message | None = None
        body = bytearray()

        async def send_translated(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and message["status"] >= 400:
                held = message
            elif held is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    start, held = held, None
                    await _send_error(send, start, bytes(body), path=path, has_token=has_token)

        await self.app(scope, receive, send_translated)

    def _is_served(self, path: str) -> bool:
        path = path.removeprefix(self.root_path).removeprefix(VERSION_PREFIX)
        return path == PREFIX or path.startswith(f"{PREFIX}/")


def _as_bearer(value: bytes) -> bytes:
    scheme, _, token = value.partition(b" ")
    return b"Bearer " + token if scheme.lower() == b"token" else value


async def _send_error(send: Send, start: Message, body: bytes, *, path: str, has_token: bool) -> None:
    """Send a held response, translated if it is a problem. An answer to HEAD has no body, and is not changed."""
    if body:
        problem: Any = json.loads(body)
        start["status"], errors = translate(start["status"], problem, path=path, has_token=has_token)
        body = json.dumps(errors, ensure_ascii=False).encode(errors="replace")
        replaced = {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
        start["headers"] = [(name, replaced.get(name.lower(), value)) for name, value in start["headers"]]
    await send(start)
    await send({"type": "http.response.body", "body": body})
