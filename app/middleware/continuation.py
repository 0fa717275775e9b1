"""Streams that go on after the middleware has returned."""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

Continuation = Callable[[Receive, Send], Awaitable[None]]


async def run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application, and then the continuation that it has set, if any.

    A stream lasts for minutes. Inside of the middleware, it would hold the frames of all layers: 25 KB for each stream.
    So the middleware counts, times and logs a stream as a request that ends when the stream begins.
    """
    continuations: list[Continuation] = []
    scope["continuations"] = continuations
    try:
        await app(scope, receive, send)
    finally:
        if continuations:
            [go_on] = continuations
            # All but what the server reads, such as the headers and the route.
            for key in scope.keys() - {"type", "method", "state"}:
                del scope[key]
            await go_on(receive, send)


def go_on_with(scope: Scope, continuation: Continuation) -> None:
    """Let the continuation send the rest of a response whose head was sent.

    It runs in any case, also if a layer of the middleware fails now, because it closes the stream.
    """
    scope["continuations"].append(continuation)
