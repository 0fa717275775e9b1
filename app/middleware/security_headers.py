"""What browsers are told about every answer."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# As ASGI has them: this is done for every answer, and Starlette's mapping would copy the headers for each.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # An answer of the API is data, never a page. The pages of the documentation set a policy of their own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
# An answer may depend on the caller in ways that no `Vary` names. What may be kept says so itself.
NO_STORE = (b"cache-control", b"no-store")
HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")


class SecurityHeaders:
    """Adds the headers that a response does not set itself; `Strict-Transport-Security` where told so."""

    def __init__(self, app: ASGIApp, *, hsts: bool) -> None:
        self.app = app
        self.headers = [*HEADERS, NO_STORE, HSTS] if hsts else [*HEADERS, NO_STORE]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] += [header for header in self.headers if header[0] not in own]
            await send(message)

        await self.app(scope, receive, send_with_headers)
