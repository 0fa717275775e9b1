"""What a request is known by, wherever its code runs: set by the outermost middleware, read by the log and the audit.

Threads that work for a request see it too: FastAPI's and the hashing threads copy the context.
"""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# Where the request came from, as far as trusted proxies tell.
client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
# What the client calls itself.
user_agent: ContextVar[str | None] = ContextVar("user_agent", default=None)
