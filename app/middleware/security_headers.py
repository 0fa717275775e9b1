"""Security headers of every response."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# In ASGI's form, because Starlette's mapping would copy the headers for each response.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # An API response is data, never a page. The documentation pages set their own policy.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
# A response may depend on the caller in ways that `Vary` cannot name. Cacheable responses set their own header.
NO_STORE = (b"cache-control", b"no-store")
HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")


class SecurityHeaders:
    """Add the headers that a response does not set itself.

    `Strict-Transport-Security` is added only with `hsts`.
    """

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
