"""Context variables of the current request.

They are its id, time of arrival, address and user agent. The middleware sets them. The log and the audit log read them.
They are also set in the threads that work for a request, because FastAPI and the hashing threads copy the context.
"""

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Network, ip_address

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# When the request arrived, as `time.monotonic()`.
arrived_at: ContextVar[float | None] = ContextVar("arrived_at", default=None)
# The client's address, which may come from a trusted proxy.
client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
# The `User-Agent` header.
user_agent: ContextVar[str | None] = ContextVar("user_agent", default=None)


# Addresses are of at most 64 characters (app/middleware/request_context.py), so these take at most 4 MB.
@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """The network of one customer: an IPv4 address, or the /64 of an IPv6 address.

    Text that is no address (a name, or empty) is returned unchanged.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or IPv6Network((int(ip) >> 64 << 64, 64)))
