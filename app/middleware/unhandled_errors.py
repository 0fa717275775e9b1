"""The last answer, where everything else failed."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.problem_details import unexpected


class UnhandledErrors:
    """Answers 500 for an exception that nobody handled; inside of what adds headers to answers, so that it has them."""

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
                raise  # The head is out; the server cuts the connection, so that nobody takes half an answer for whole.
            await response(scope, receive, send)
