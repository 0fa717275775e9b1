"""Live streams through the proxies of deploy/."""

import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import timedelta
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from app.security import access_tokens
from tests.deploy.conftest import Proxy
from tests.deploy.test_proxies import unverified
from tests.fixtures import Person, Server
from tests.live.listening import Listener
from tests.live.sockets import refusal_of, socket_at
from tests.live.test_streams import send

MakePost = Callable[..., int]
# Longer than the time after which the proxies disconnect slow clients, and than that between two pings.
IDLE_SECONDS = 32


def options_of(proxy: Proxy) -> dict[str, Any]:
    """Return options for a client of WebSockets, whose threads read and write at once, which OpenSSL does not allow.

    With the session tickets of TLS 1.3, about one request in 500 was lost before it was sent.
    """
    if not proxy.url.startswith("https"):
        return {}
    context = unverified()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return {"ssl": context}


def listener_at(proxy: Proxy, query: str, headers: dict[str, str]) -> Listener:
    return Listener(proxy.url, query, headers, verify=False)


def test_a_stream_through_the_proxy_is_not_held_back(
    proxy: Proxy, server: Server, person: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    listener = listener_at(proxy, f"posts={post_id}", person.headers)
    try:
        listener.wait_for_type("state")
        began_at = time.monotonic()
        send("PUT", f"{server.url}/posts/{post_id}/vote", person)
        assert listener.wait_for_type("post")["post"]["votes"] == 1
        assert listener.times[-1] - began_at < 1
        assert listener.response.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in listener.response.headers
    finally:
        listener.close()


def test_a_socket_through_the_proxy(proxy: Proxy, server: Server, person: Person, make_post: MakePost) -> None:
    post_id = make_post(person)
    with socket_at(proxy.url, person.headers, f"posts={post_id}", **options_of(proxy)) as live:
        live.next("state")
        began_at = time.monotonic()
        send("PUT", f"{server.url}/posts/{post_id}/vote", person)
        assert live.next("post")["post"]["votes"] == 1
        assert time.monotonic() - began_at < 1
        live.send({"unwatch": [f"post:{post_id}"], "watch": ["new"]})
        assert live.next("state")["posts"] == []
    assert refusal_of(proxy.url, {}, **options_of(proxy)) == (401, "not_authenticated")


def test_the_cookie_through_the_proxy_is_for_pages_of_its_origin(proxy: Proxy, person: Person) -> None:
    cookie = access_tokens.issue(person.id, person.session_id, timedelta(minutes=30), "cookie")
    headers = {"Cookie": f"__Host-session={cookie}"}
    with socket_at(proxy.url, headers | {"Origin": proxy.url}, "topics=me", **options_of(proxy)) as live:
        assert live.next("state")["unread"]["unread"] == 0
    for origin in ("https://evil.example", f"{proxy.url}0", "null"):
        refused = refusal_of(proxy.url, headers | {"Origin": origin}, **options_of(proxy))
        assert refused == (403, "cross_site_request")


def test_the_server_notices_that_a_client_behind_the_proxy_is_gone(proxy: Proxy, person: Person) -> None:
    def opened() -> AbstractContextManager[object]:
        # Of HTTP/1.1, HAProxy notices the end of a WebSocket, but that of another stream only with a ping.
        if proxy.name == "haproxy":
            return socket_at(proxy.url, person.headers, **options_of(proxy))
        return listener_at(proxy, "", person.headers)

    for _ in range(3):
        deadline = time.monotonic() + 10
        with ExitStack() as stack:
            for _ in range(5):
                while True:
                    try:
                        stack.enter_context(opened())
                        break
                    except (AssertionError, InvalidStatus):
                        assert time.monotonic() < deadline
                        time.sleep(0.2)


@pytest.mark.slow
def test_idle_streams_are_not_cut_off(proxy: Proxy, server: Server, person: Person, make_post: MakePost) -> None:
    post_id = make_post(person)
    listener = listener_at(proxy, f"posts={post_id}", person.headers)
    try:
        with socket_at(proxy.url, person.headers, f"posts={post_id}", **options_of(proxy)) as live:
            live.next("state")
            deadline = time.monotonic() + IDLE_SECONDS
            with suppress(TimeoutError):
                while True:  # The client answers pings while it receives.
                    live.connection.recv(timeout=deadline - time.monotonic())
            assert not listener.has_ended
            send("PUT", f"{server.url}/posts/{post_id}/vote", person)
            assert live.next("post")["post"]["votes"] == 1
            assert listener.wait_for_type("post")["post"]["votes"] == 1
    finally:
        listener.close()
