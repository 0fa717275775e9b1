"""What goes on after the middleware has returned."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from app.middleware import continuation


def test_a_stream_is_closed_if_a_layer_fails_after_its_head() -> None:
    has_run = []

    async def go_on(_receive: Receive, _send: Send) -> None:
        has_run.append(True)

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        continuation.go_on_with(scope, go_on)
        raise ZeroDivisionError

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None: ...

    with pytest.raises(ZeroDivisionError):
        asyncio.run(continuation.run(app, {"type": "http"}, receive, send))
    assert has_run == [True]
