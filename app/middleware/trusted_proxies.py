"""The client's address and scheme, from the headers of trusted proxies."""

import logging
from collections.abc import Sequence
from ipaddress import IPv6Network, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.middleware.headers import header

logger = logging.getLogger("app.proxies")


class TrustedProxies:
    """Set client and scheme from the forwarding headers of trusted proxies.

    The headers are `X-Forwarded-For` and `X-Forwarded-Proto`. The client is the last hop that is not one of the
    proxies, because the client may have written earlier hops itself. Headers of other peers are ignored. The first one
    is logged: with a proxy missing in the setting, all its clients would share one rate limit.
    """

    def __init__(self, app: ASGIApp, *, proxies: Sequence[str]) -> None:
        self.app = app
        networks = [ip_network(proxy) for proxy in proxies]
        # A socket that listens on IPv6 may see IPv4 peers as ::ffff:10.0.0.1.
        mapped = [
            IPv6Network((f"::ffff:{network.network_address}", 96 + network.prefixlen))
            for network in networks
            if network.version == 4
        ]
        trusted = [str(network) for network in [*networks, *mapped]]
        self.believing = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type]
        self.has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope.get("client"):
            peer = scope["client"][0]
            if peer in self.believing.trusted_hosts:
                await self.believing(scope, receive, send)  # type: ignore[arg-type]
                return
            if not self.has_warned and header(scope, b"x-forwarded-for"):
                self.has_warned = True
                logger.warning("ignored X-Forwarded-For of %s; if that is your proxy, add it to TRUSTED_PROXIES", peer)
        await self.app(scope, receive, send)
