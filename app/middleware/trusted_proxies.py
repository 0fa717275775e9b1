"""Where a request comes from: what proxies before the server say of it is believed, what others say is not."""

import logging
from collections.abc import Sequence
from ipaddress import IPv6Network, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.middleware.headers import header

logger = logging.getLogger("app.proxies")


class TrustedProxies:
    """Sets the client and the scheme by `X-Forwarded-For` and `-Proto`, where the peer is one of the proxies.

    The client is the last hop that is not one of them: what stands before it, the client may have written itself.
    Headers of anybody else are ignored, and the first time that is said, because an operator who forgot to name a proxy
    would have all its clients limited as if they were one.
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
        if scope["type"] == "http" and scope.get("client"):
            peer = scope["client"][0]
            if peer in self.believing.trusted_hosts:
                await self.believing(scope, receive, send)  # type: ignore[arg-type]
                return
            if not self.has_warned and header(scope, b"x-forwarded-for"):
                self.has_warned = True
                logger.warning(
                    "X-Forwarded-For of %s is ignored; if that is your proxy, name it in TRUSTED_PROXIES", peer
                )
        await self.app(scope, receive, send)
