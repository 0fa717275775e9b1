"""`WS /live`: the same messages, on topics that change, and what a hostile client can send."""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from sqlalchemy import Connection, text
from websockets.exceptions import ConnectionClosed

from tests.fixtures import Person, Server
from tests.live.listening import listening
from tests.live.sockets import Socket, refusal_of, socket_at
from tests.live.test_streams import MakePerson, MakePost, send, values_of


def close_code_of(of_socket: Socket) -> int | None:
    with suppress(ConnectionClosed):
        while True:
            of_socket.connection.recv(timeout=20)
    return of_socket.connection.close_code


def test_a_socket_watches_and_unwatches(
    url: str, other_url: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    first, second, voter = make_post(person), make_post(person), make_person()
    with socket_at(url, person.headers, f"posts={first}") as live:
        assert [post["id"] for post in live.next("state")["posts"]] == [first]
        live.send({"watch": [f"post:{second}", "me"]})
        state = live.next("state")
        assert [post["id"] for post in state["posts"]] == [second]
        assert state["unread"]["unread"] == 0
        live.send({"unwatch": [f"post:{first}"]})
        time.sleep(0.3)
        for post_id in (first, second):
            send("PUT", f"{other_url}/posts/{post_id}/vote", voter)
        assert live.next("post")["id"] == second
        send("POST", f"{other_url}/posts/{second}/comments", voter, json={"content": "Hello"})
        assert live.next("notification")["event_id"]
        assert [message["id"] for message in live.messages if message["type"] == "post"] in ([second], [second, second])


def test_a_socket_goes_on_after_an_event_id(
    url: str, other_url: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    post_id, author = make_post(person), make_person()

    def comment(content: str) -> None:
        send("POST", f"{other_url}/posts/{post_id}/comments", author, json={"content": content})

    with socket_at(url, person.headers, f"posts={post_id}") as live:
        live.next("state")
        comment("first")
        event_id = live.next("comment")["event_id"]
    comment("second")
    with listening(other_url, person, f"posts={post_id}", last_event_id=event_id) as listener:
        assert listener.wait_for_type("comment")["comment"]["content"] == "second"
    with socket_at(other_url, person.headers, f"posts={post_id}&last_event_id={event_id}") as live:
        assert live.next("comment")["comment"]["content"] == "second"
    with socket_at(url, person.headers, f"posts={post_id}&last_event_id=nonsense") as live:
        live.next("reset")


@pytest.mark.parametrize(
    "message",
    ["{", "[]", "{}", '{"watch": "new"}', '{"watch": [1]}', '{"watch": ["posts"]}', '{"watch": ["tag:a b"]}',
     '{"watch": ["new"], "do": []}', "[" * 10_000, '{"watch": ["post:9999999999999999999"]}',
     '{"watch": [' + ",".join(f'"post:{number}"' for number in range(1, 202)) + "]}"],
    ids=lambda message: message[:30],
)  # fmt: skip
def test_a_message_that_is_not_understood_is_answered_and_the_stream_goes_on(
    url: str, person: Person, make_post: MakePost, message: str
) -> None:
    with socket_at(url, person.headers) as live:
        live.next("state")
        live.send(message)
        assert live.next("problem")["detail"]
        live.send({"watch": [f"post:{make_post(person)}"]})
        assert values_of(live.next("state")["posts"][0]) == (0, 0)


def test_the_handshake_has_the_errors_of_the_route(
    servers: Sequence[Server], url: str, person: Person, make_person: MakePerson
) -> None:
    assert refusal_of(url, {}) == (401, "not_authenticated")
    assert refusal_of(url, {"Authorization": "Bearer nonsense"}) == (401, "not_authenticated")
    too_many = ",".join(map(str, range(1, 202)))
    for query in (f"posts={too_many}", "topics=all", "posts=-1", "topics=tag:"):
        assert refusal_of(url, person.headers, query) == (422, "validation_failed")
    other = make_person()
    send("POST", f"{url}/logout", other)
    assert refusal_of(url, other.headers) == (401, "not_authenticated")
    assert "without completing handshake" not in servers[0].log.read_text()


def test_streams_and_sockets_share_the_limit_of_an_account(url: str, person: Person) -> None:
    with (
        listening(url, person, ""), listening(url, person, ""),
        socket_at(url, person.headers), socket_at(url, person.headers), socket_at(url, person.headers),
    ):  # fmt: skip
        assert refusal_of(url, person.headers) == (429, "too_many_streams")


def test_signing_out_closes_a_socket_within_a_second(url: str, other_url: str, person: Person) -> None:
    with socket_at(url, person.headers, "topics=me") as live:
        live.next("state")
        send("POST", f"{other_url}/logout", person)
        ended_at = time.monotonic()
        assert live.next("end")["reason"] == "session_ended"
        assert time.monotonic() - ended_at < 1
        assert close_code_of(live) == 1008


def test_revoking_an_api_key_closes_its_socket(url: str, other_url: str, person: Person) -> None:
    key = send("POST", f"{url}/api-keys", person, json={"name": "n", "scopes": ["read"]}).json()
    with socket_at(url, {"X-API-Key": key["key"]}, "topics=me") as live:
        live.next("state")
        send("DELETE", f"{other_url}/api-keys/{key['id']}", person)
        ended_at = time.monotonic()
        assert live.next("end")["reason"] == "session_ended"
        assert time.monotonic() - ended_at < 1
    assert refusal_of(url, {"X-API-Key": key["key"]}) == (401, "not_authenticated")


def test_sigterm_closes_sockets_with_1012(start_server: Callable[..., Server], person: Person) -> None:
    server = start_server()
    with socket_at(server.url, person.headers, "topics=me") as live:
        live.next("state")
        server.process.terminate()
        assert close_code_of(live) == 1012
        assert server.process.wait(timeout=10) == 0


def test_other_paths_ignore_an_upgrade(url: str, person: Person) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as plain:
        plain.sendall(handshake("/users/me", person))
        assert plain.recv(65536).startswith(b"HTTP/1.1 200 OK")


def handshake(path: str, person: Person, *lines: str) -> bytes:
    head = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            f"Authorization: Bearer {person.token}", *lines]  # fmt: skip
    return "\r\n".join([*head, "", ""]).encode()


def opened(url: str, person: Person, path: str = "/live") -> socket.socket:
    """Open a WebSocket and return its connection."""
    plain = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20)
    plain.sendall(handshake(path, person))
    received = b""
    while b"state" not in received:
        received += plain.recv(65536)
    assert received.startswith(b"HTTP/1.1 101 ")
    return plain


def is_cut_off(plain: socket.socket) -> bool:
    try:
        while plain.recv(65536):
            pass
    except ConnectionError:
        return True
    return True


PING = b"\x89\x80\0\0\0\0"
SHORT_MESSAGE = b"\x81\x81\0\0\0\0x"


@pytest.mark.parametrize("frame", [PING, SHORT_MESSAGE, b"\x01\x80\0\0\0\0"], ids=["pings", "messages", "fragments"])
def test_a_client_that_sends_without_end_is_cut_off(
    url: str, person: Person, make_person: MakePerson, frame: bytes
) -> None:
    with opened(url, person) as plain, socket_at(url, make_person().headers) as other:
        other.next("state")
        began_at = time.monotonic()
        with suppress(ConnectionError):
            for _ in range(1_000):
                plain.sendall(frame * 10_000)
        assert is_cut_off(plain)
        other.send({"watch": ["new"]})
        other.next("state")
        assert time.monotonic() - began_at < 10


def test_a_client_that_sends_before_the_handshake_is_answered_reaches_no_route(
    servers: Sequence[Server], url: str, person: Person
) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as plain:
        plain.sendall(handshake("/live", person, "X-Request-ID: sent-early") + PING * 1_000)
        assert is_cut_off(plain)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as plain:
        plain.sendall(handshake("/live", person, "X-Request-ID: sent-in-time"))
        assert plain.recv(4096).startswith(b"HTTP/1.1 101 ")
    deadline = time.monotonic() + 10
    while "sent-in-time" not in servers[0].log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "sent-early" not in servers[0].log.read_text()


@pytest.mark.parametrize("lines", [["X: y"] * 200, ["X: " + "y" * 20_000]], ids=["many headers", "a long header"])
def test_a_handshake_with_too_many_headers_is_refused(
    servers: Sequence[Server], url: str, person: Person, lines: list[str]
) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as plain:
        plain.sendall(handshake("/live", person, *lines))
        assert is_cut_off(plain)
    assert "Traceback" not in servers[0].log.read_text()


def test_the_session_of_a_socket_that_expires_ends_it(url: str, person: Person, connection: Connection) -> None:
    with socket_at(url, person.headers) as live:
        live.next("state")
        connection.execute(text("UPDATE sessions SET expires_at = now() WHERE id = :id"), {"id": person.session_id})
        assert live.next("end")["reason"] == "session_ended"
