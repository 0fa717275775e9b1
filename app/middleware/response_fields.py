"""`RESPONSE_FIELDS=tutorial`: only return the fields of the tutorial's API."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The fields of an object and of its nested objects. None stands for any value, which is kept unchanged.
Shape = Mapping[str, "Shape | None"]

_USER: Shape = dict.fromkeys(("id", "email", "created_at"))
_POST: Shape = {
    **dict.fromkeys(("id", "title", "content", "published", "created_at", "owner_id")),
    "owner": _USER,
}
_POST_WITH_VOTES: Shape = {"Post": _POST, "votes": None}
_MESSAGE: Shape = {"message": None}
_ERROR: Shape = {"detail": None}
# By the names of the tutorial's routes. Responses of other routes are not changed.
_SHAPES: Mapping[str, Shape] = {
    "list_posts": _POST_WITH_VOTES,
    "get_post": _POST_WITH_VOTES,
    "create_post": _POST,
    "replace_post": _POST,
    "sign_up": _USER,
    "get_user": _USER,
    "login": dict.fromkeys(("access_token", "token_type")),
    "cast_vote": _MESSAGE,
    "get_root": _MESSAGE,
}
_JSON = b"application/json"


class ResponseFields:
    """Remove fields that the tutorial does not have from JSON responses and errors.

    It is outside of every layer that can respond. A response that lacks a field of the tutorial's (such as
    `POST /login?cookie=true`) is not changed. Bodies are held until they are complete. A page has at
    most 1 MB, which takes some 12 ms of the event loop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: Message | None = None
        shape: Shape | None = None
        chunks: list[bytes] = []

        async def send_narrowed(message: Message) -> None:
            nonlocal held, shape
            if message["type"] == "http.response.start":
                shape = _shape_of(scope, message)
                if shape is None:
                    await send(message)
                else:
                    held = message
                return
            if shape is None or held is None:
                await send(message)
                return
            chunks.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = _narrowed(b"".join(chunks), shape)
            headers = [(name, value) for name, value in held["headers"] if name.lower() != b"content-length"]
            if body:  # The response to HEAD has no body, and so no length.
                headers.append((b"content-length", b"%d" % len(body)))
            await send({**held, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, send_narrowed)


def _shape_of(scope: Scope, start: Message) -> Shape | None:
    if not any(name.lower() == b"content-type" and value == _JSON for name, value in start["headers"]):
        return None
    if start["status"] >= 400:
        return _ERROR
    if scope["method"] == "HEAD":
        return _MESSAGE  # Any shape will do, because there is no body.
    return _SHAPES.get(getattr(scope.get("route"), "name", ""))


def _narrowed(body: bytes, shape: Shape) -> bytes:
    return to_json(_pick(from_json(body), shape)) if body else body


def _pick(value: Any, shape: Shape | None) -> Any:
    if shape is None:
        return value
    if isinstance(value, list):
        return [_pick(item, shape) for item in value]
    if not isinstance(value, dict) or not value.keys() >= shape.keys():
        return value
    return {name: _pick(value[name], inner) for name, inner in shape.items()}
