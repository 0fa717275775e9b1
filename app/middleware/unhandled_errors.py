"""Responses to unhandled exceptions."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.problem_details import unexpected


class UnhandledErrors:
    """Answer an unhandled exception with 500.

    Inside the middleware that adds headers to responses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = unexpected(scope, error)
            if has_begun:
                raise  # The head has been sent. The server closes the connection, so that the client sees the error.
            await response(scope, receive, send)
