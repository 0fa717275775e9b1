"""Which pages of other origins a browser lets call. Starlette's, but for a refusal in our one shape."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.problems import problem_response


class Cors(CORSMiddleware):
    """Starlette's, which refuses a preflight in plain text, and looks at what no browser sent from another origin."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"origin" not in dict(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code < 400 else _Refusal(response)


class _Refusal(Response):
    """400 `cors_refused`, with the headers and the words of Starlette's answer."""

    def __init__(self, refusal: Response) -> None:
        super().__init__(refusal.body, refusal.status_code)
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = {name: value for name, value in self.refusal.headers.items() if not name.startswith("content-")}
        problem = problem_response(scope, self.status_code, "cors_refused", bytes(self.body).decode(), kept)
        await problem(scope, receive, send)
