"""Addresses that the server may send requests to on behalf of users.

A user's URL may name any host, and its name may resolve to any address. Requests to addresses of the server's own
network would reach services that trust it, such as the metadata service of a cloud ("server-side request forgery",
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html).
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from app.config import get_settings

# Networks that Python 3.11 takes for public: Azure's platform service, which answers every virtual machine there, and
# only those; protocols, such as the metadata service of Oracle; relays for 6to4; documentation; old site-local ones.
_NOT_PUBLIC = [
    ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "fec0::/10")
]
# Gateways translate these to the IPv4 addresses in their last bits (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")
# The resolver takes names that end with a number, as 127.1 or 0x7f.1, for addresses.
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?!\d|0x)[a-z0-9_-]{1,63}")
DEFAULT_PORTS = {"http": 80, "https": 443}


class Refused(ValueError):
    """The URL or its address is not allowed. The message says why."""


class Target(NamedTuple):
    """The parts of a URL. `host` is ASCII, and `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Return the parts of the URL. Raises `Refused`, also for a host that is an address which is not allowed.

    In production the URL must be https.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise Refused("the URL should consist of printable ASCII characters; encode others")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise Refused("the URL is malformed") from None
    is_production = get_settings().environment == "production"
    if parts.scheme not in ({"https"} if is_production else DEFAULT_PORTS.keys()):
        raise Refused("the URL should begin with https://")
    if not host or port == 0 or "%" in host:
        raise Refused("the URL should name a host and, if any, a valid port")
    if parts.username is not None or parts.fragment or url.endswith("#"):
        raise Refused("the URL should have neither a user name nor a fragment")
    host = host.removesuffix(".")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path)
    if "[" not in parts.netloc and _NAME.fullmatch(host):
        return target
    try:
        address = ip_address(host)
    except ValueError:
        raise Refused("the URL should name a valid host") from None
    require_public(address)
    return target


def require_public(address: IPv4Address | IPv6Address) -> None:
    """Raise `Refused` unless the address is public, or in `WEBHOOK_ALLOWED_NETWORKS`."""
    if any(address in network for network in get_settings().webhook_networks):
        return
    for each in (address, *_embedded(address)):
        is_listed = any(each in network for network in _NOT_PUBLIC)
        if not each.is_global or each.is_multicast or each.is_reserved or is_listed:
            raise Refused("the address is not public")


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses to which an IPv6 address may lead."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
