"""CORS: Starlette's middleware, with refusals as problem responses."""

import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.middleware.problem_details import problem_response

# A cache must not serve the response of one origin, or of a client without an origin, to another origin.
VARY = (b"vary", b"Origin")
# The response repeats the header names of a preflight. Allow only names, and only as many as fit into a proxy's buffer.
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,1024}")


class Cors(CORSMiddleware):
    """Starlette's middleware with problem responses.

    Requests without `Origin` bypass it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"origin" not in dict(scope["headers"]):

            async def send_with_vary(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append(VARY)
                await send(message)

            await self.app(scope, receive, send_with_vary)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if not _HEADER_NAMES.fullmatch(request_headers.get("access-control-request-headers", "")):
            del response.headers["Access-Control-Allow-Headers"]
            response.status_code, response.body = 400, b"Disallowed CORS headers"
        return response if response.status_code < 400 else _Refusal(response)


class _Refusal(Response):
    """400 `cors_refused`, with the headers and the text of Starlette's response."""

    def __init__(self, refusal: Response) -> None:
        super().__init__(refusal.body, refusal.status_code)
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = {name: value for name, value in self.refusal.headers.items() if not name.startswith("content-")}
        problem = problem_response(scope, self.status_code, "cors_refused", bytes(self.body).decode(), kept)
        await problem(scope, receive, send)
