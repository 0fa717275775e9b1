"""Profiles of single requests, for development."""

import html
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio.to_thread
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.headers import header

_is_profiled: ContextVar[bool] = ContextVar("is_profiled", default=False)


class Profiling:
    """Answer with a profile by pyinstrument instead of the response, if an admin sends `X-Profile`.

    `X-Profile: html` has the profile as a page, any other value as text. The request is executed as without it, writes
    included. Callers other than admins get their ordinary response. The route runs in the event loop and not in a
    thread, because pyinstrument records one thread; other requests wait meanwhile. Statements of batches run in
    threads of their own, and appear as waiting.
    """

    def __init__(self, app: ASGIApp, *, is_admin: Callable[[Scope], Awaitable[bool]]) -> None:
        from pyinstrument import Profiler  # noqa: PLC0415 - only development has it.

        self.app = app
        self.is_admin = is_admin
        self.profiler = Profiler
        _run_profiled_functions_in_the_event_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = header(scope, b"x-profile") if scope["type"] == "http" else b""
        if not wanted or not await self.is_admin(scope):
            await self.app(scope, receive, send)
            return
        status = 0

        async def drop(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        token = _is_profiled.set(True)
        try:
            with self.profiler(interval=0.0002, async_mode="enabled") as profile:
                await self.app(scope, receive, drop)
        finally:
            _is_profiled.reset(token)
        title = f"{scope['method']} {scope['path']}: {status}"
        if wanted == b"html":
            page = profile.output_html().replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)
            response = Response(page, media_type="text/html")
        else:
            response = Response(f"{title}\n{profile.output_text(show_all=True)}", media_type="text/plain")
        await response(scope, receive, send)


def _run_profiled_functions_in_the_event_loop() -> None:
    """Replace the function by which Starlette and FastAPI run functions in threads."""
    run_in_thread = anyio.to_thread.run_sync
    if getattr(run_in_thread, "is_replaced", False):
        return

    async def run_sync(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args) if _is_profiled.get() else await run_in_thread(function, *args, **options)

    run_sync.is_replaced = True  # type: ignore[attr-defined]
    anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
