"""`X-Forwarded-For` and `-Proto` are trusted from configured proxies, up to the first other hop."""

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.middleware.trusted_proxies import TrustedProxies

PROXIES = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope)
    assert request.client is not None
    await PlainTextResponse(f"{request.url.scheme} {request.client.host}")(scope, receive, send)


def seen(peer: str, *forwarded: str, proto: str | None = None, proxies: list[str] = PROXIES) -> str:
    """Scheme and client, as the application sees them, of a request with these `X-Forwarded-For` headers."""
    headers = [("X-Forwarded-For", value) for value in forwarded]
    if proto is not None:
        headers.append(("X-Forwarded-Proto", proto))
    client = TestClient(TrustedProxies(echo, proxies=proxies), client=(peer, 50_000))
    return client.get("/", headers=headers).text


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::1", ["2001:0:1::9"], "2001:0:1::9"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9, 10.9.9.9, 192.0.2.1"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9", "10.9.9.9"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.1.2.3", ["[2001:0:1::9]:4711"], "2001:0:1::9"),
        ("10.1.2.3", [], "10.1.2.3"),
    ],
)
def test_client_is_the_last_hop_that_is_no_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert seen(peer, *forwarded) == f"http {client}"


@pytest.mark.parametrize("made_up", ["1.1.1.1", "10.0.0.1", "127.0.0.1", "1.1.1.1, 10.0.0.1", "unknown", "", ","])
def test_addresses_that_the_client_forged_are_not_trusted(made_up: str) -> None:
    assert seen("10.1.2.3", f"{made_up}, 203.0.113.9") == "http 203.0.113.9"
    assert seen("10.1.2.3", made_up, "203.0.113.9") == "http 203.0.113.9"


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.0.2.2", "11.0.0.1", "::ffff:11.0.0.1", "::1", "testclient"])
def test_headers_of_other_peers_are_ignored_with_one_log_line(peer: str, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(TrustedProxies(echo, proxies=PROXIES), client=(peer, 50_000))
    for _ in range(3):
        headers = {"X-Forwarded-For": "10.0.0.1, 1.1.1.1", "X-Forwarded-Proto": "https"}
        assert client.get("/", headers=headers).text == f"http {peer}"

    (record,) = caplog.records
    assert record.getMessage().startswith(f"ignored X-Forwarded-For of {peer};")


def test_without_configured_proxies_no_peer_is_trusted() -> None:
    assert seen("127.0.0.1", "203.0.113.9", proto="https", proxies=[]) == "http 127.0.0.1"


def test_scheme_is_what_the_proxy_says() -> None:
    assert seen("10.1.2.3", "203.0.113.9", proto="https") == "https 203.0.113.9"
    assert seen("10.1.2.3", "203.0.113.9", proto="gopher") == "http 203.0.113.9"
    assert seen("203.0.113.9", proto="https") == "http 203.0.113.9"
