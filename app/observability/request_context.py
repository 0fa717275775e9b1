"""What a request is known by, wherever its code runs: set by the outermost middleware, read by the log and the audit.

Threads that work for a request see it too: FastAPI's and the hashing threads copy the context.
"""

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Network, ip_address

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# Where the request came from, as far as trusted proxies tell.
client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
# What the client calls itself.
user_agent: ContextVar[str | None] = ContextVar("user_agent", default=None)


# Addresses are of at most 64 characters (app/middleware/request_context.py), so these take at most 4 MB.
@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """Whom an address stands for: one IPv4 address, or the /64 of an IPv6 address, all of which is one customer's.

    What is not an address (a name, nothing at all) stands for itself.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Network((int(ip) >> 64 << 64, 64)))
