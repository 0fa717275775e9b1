"""Streams while workers are killed, servers stop, and clients do not read."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import psutil
import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.live import stream
from tests.figures import Figure
from tests.fixtures import Person, Server, counted_queries
from tests.live.listening import Listener, Message
from tests.live.test_sockets import opened
from tests.live.test_streams import MakePerson, MakePost, send
from tests.races.waiting import wait_until_events_arrive

# A comment of this length is sent alone, so that few of them fill all buffers between server and client.
LONG = "x" * 10_000
# Of five streams. All messages have 18 MB for each of them.
MAX_GROWN_BYTES = 5_000_000


@contextmanager
def connected(url: str, person: Person, query: str, **headers: str) -> Iterator[socket.socket]:
    """A stream over a plain socket with small buffers, so that a client that does not read holds little."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(20)
        plain.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        lines = [f"{name}: {value}" for name, value in {**person.headers, **headers}.items()]
        plain.sendall("\r\n".join([f"GET /live?{query} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        received = b""
        while b'"state"' not in received:
            piece = plain.recv(4096)
            assert piece, received
            received += piece
        yield plain


def messages_of(plain: socket.socket, is_last: Callable[[Message], bool]) -> list[Message]:
    """Read on, up to the last message that is wanted."""
    received = b""
    messages: list[Message] = []
    while not (messages and is_last(messages[-1])):
        piece = plain.recv(65536)
        assert piece, messages
        received += piece
        *lines, received = received.split(b"\n")
        messages += [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: {")]
    return messages


def worker_of(server: Server, port: int) -> int:
    """Return the process that has the connection from this port."""
    for child in psutil.Process(server.process.pid).children(recursive=True):
        for connection in child.net_connections("tcp"):
            if connection.raddr and connection.raddr[1] == port:
                return int(child.pid)
    raise AssertionError("no worker has the connection")


def port_of(listener: Listener) -> int:
    return int(listener.response.extensions["network_stream"].get_extra_info("client_addr")[1])


def is_comment(comment_id: int) -> Callable[[Message], bool]:
    return lambda message: message["type"] == "comment" and message["comment"]["id"] == comment_id


def write_comments(database: Engine, author: Person, post_id: int, contents: list[str]) -> list[int]:
    """Write comments, each in a transaction of its own, with their events."""
    ids = []
    for content in contents:
        with database.begin() as connection:
            comment_id = connection.scalar(
                text("""
                    INSERT INTO comments (post_id, owner_id, content, depth) VALUES (:post_id, :owner_id, :content, 0)
                    RETURNING id
                """),
                {"post_id": post_id, "owner_id": author.id, "content": content},
            )
            connection.execute(
                text("""
                    INSERT INTO events (kind, actor_id, post_id, comment_id)
                    VALUES ('comment', :owner_id, :post_id, :comment_id)
                """),
                {"post_id": post_id, "owner_id": author.id, "comment_id": comment_id},
            )
        assert isinstance(comment_id, int)
        ids.append(comment_id)
    return ids


def test_the_client_of_a_killed_worker_goes_on_without_loss(
    start_server: Callable[..., Server],
    person: Person,
    make_person: MakePerson,
    make_post: MakePost,
    database: Engine,
    connection: Connection,
) -> None:
    server = start_server(WORKERS="2")
    author, post_id = make_person(), make_post(person)
    got: list[int] = []
    write_comments(database, author, post_id, ["before"])
    wait_until_events_arrive(connection)
    listener = Listener(server.url, f"posts={post_id}", person.headers)
    listener.wait_for_type("state")
    written = write_comments(database, author, post_id, ["first"])
    listener.wait_for_type("comment")
    written += write_comments(database, author, post_id, ["at the end"])
    os.kill(worker_of(server, port_of(listener)), signal.SIGKILL)
    listener.wait_for_end()
    got += [message["comment"]["id"] for message in listener.of_type("comment")]
    headers = person.headers | {"Last-Event-ID": listener.last_event_id or ""}
    listener.close()
    written += write_comments(database, author, post_id, ["meanwhile"])
    deadline = time.monotonic() + 30
    while True:
        try:
            again = Listener(server.url, f"posts={post_id}", headers)
            break
        except httpx2.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    try:
        written += write_comments(database, author, post_id, ["afterwards"])
        again.wait_for(lambda message: message["type"] == "comment" and message["comment"]["content"] == "afterwards")
        got += [message["comment"]["id"] for message in again.of_type("comment")]
        assert again.of_type("reset") == []
    finally:
        again.close()
    assert got == written


def test_a_stream_may_begin_with_what_was_written_just_before_it(
    url: str, person: Person, make_person: MakePerson, make_post: MakePost, database: Engine
) -> None:
    """An event arrives when all older transactions have ended, and then nothing tells when it was written."""
    author, post_id = make_person(), make_post(person)
    with database.connect() as older:
        older.execute(text("SELECT pg_current_xact_id()"))
        write_comments(database, author, post_id, ["before"])
        with Listener(url, f"posts={post_id}", person.headers) as listener:
            assert listener.wait_for_type("state")["posts"][0]["post"]["comments"] == 1
            older.rollback()
            assert listener.wait_for_type("comment")["comment"]["content"] == "before"


def test_a_client_that_reads_late_misses_nothing_but_what_is_hidden_by_then(
    url: str, person: Person, make_person: MakePerson, make_post: MakePost, database: Engine
) -> None:
    author, blocked, post_id = make_person(), make_person(), make_post(person)
    with connected(url, person, f"posts={post_id}") as plain:
        kept = write_comments(database, author, post_id, [LONG] * 200)
        removed = write_comments(database, author, post_id, ["removed"] * 5)
        hidden = write_comments(database, blocked, post_id, ["hidden"] * 5)
        time.sleep(3)
        for comment_id in removed:
            send("DELETE", f"{url}/comments/{comment_id}", author)
        send("PUT", f"{url}/users/{blocked.id}/block", person)
        last = write_comments(database, author, post_id, ["last"])
        messages = messages_of(
            plain, lambda message: message["type"] == "comment" and message["comment"]["content"] == "last"
        )
    got = [message["comment"]["id"] for message in messages if message["type"] == "comment"]
    assert got == kept + last, set(got) & {*removed, *hidden}
    assert not [message for message in messages if message["type"] == "reset"]
    posts = [message for message in messages if message["type"] == "post"]
    assert len(posts) < 50


def test_a_client_that_does_not_read_costs_little_memory(
    start_server: Callable[..., Server],
    person: Person,
    make_person: MakePerson,
    make_post: MakePost,
    database: Engine,
    figure: Figure,
) -> None:
    author, post_id = make_person(), make_post(person)

    def grown() -> int:
        """Return how much more memory a new server takes with five streams that are not read."""
        server = start_server()
        process = psutil.Process(server.process.pid)
        with ExitStack() as stack, Listener(server.url, f"posts={post_id}", author.headers) as reader:

            def send_comments() -> int:
                """Return the memory once the reader has got them all.

                It gets a portion before the next is written. Else the worker's own memory depends on how many it reads
                at once, and so on what else runs on the machine.
                """
                for portion in range(9):
                    comments = [f"{portion} {number} " + "ä" * 9_900 for number in range(100)]
                    *_, last = write_comments(database, author, post_id, comments)
                    reader.wait_for(is_comment(last))
                return int(process.memory_info().rss)

            before_bytes = max(send_comments() for _ in range(2))
            for _ in range(3):
                stack.enter_context(connected(server.url, person, f"posts={post_id}"))
            for _ in range(2):
                stack.enter_context(opened(server.url, person, f"/live?posts={post_id}"))
            return send_comments() - before_bytes

    # In about one of 20 servers, the worker's own memory takes a step of 5 MB meanwhile.
    grown_bytes = grown()
    if grown_bytes >= MAX_GROWN_BYTES:
        grown_bytes = grown()
    figure(f"five streams that are not read, of 900 comments of 20 KB: {grown_bytes / 1e6:.1f} MB more")
    assert grown_bytes < MAX_GROWN_BYTES, grown_bytes


def test_sigterm_does_not_wait_for_clients_that_do_not_read(
    start_server: Callable[..., Server], person: Person, make_person: MakePerson, make_post: MakePost, database: Engine
) -> None:
    server, author, post_id = start_server(), make_person(), make_post(person)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(server.url, person, f"posts={post_id}"))
        for _ in range(2):
            stack.enter_context(opened(server.url, person, f"/live?posts={post_id}"))
        write_comments(database, author, post_id, [LONG] * 400)
        time.sleep(1.5)
        began_at = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - began_at < 5
    assert "Traceback" not in server.log.read_text()


def test_the_request_of_a_stream_ends_when_the_stream_begins(
    start_server: Callable[..., Server], person: Person
) -> None:
    """The frames of the middleware would take 25 KB for as long as the stream lasts."""
    server = start_server(MAX_IN_FLIGHT="1")
    with connected(server.url, person, "topics=me", **{"X-Request-ID": "of-a-stream"}) as plain:
        deadline = time.monotonic() + 10
        while not any("GET '/live' 200" in line for line in server.log.read_text().splitlines()):
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)
        with opened(server.url, person, "/live?topics=me"):
            send("POST", f"{server.url}/logout", person)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += plain.recv(4096)
        assert b'"session_ended"' in received
        # The connection is kept for further requests.
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain.recv(4096).startswith(b"HTTP/1.1 200 ")
    end = re.compile(r"stream ended: reason=session_ended seconds=[0-9.]+ of-a-stream$", re.MULTILINE)
    deadline = time.monotonic() + 10
    while not end.search(server.log.read_text()):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    assert "Traceback" not in server.log.read_text()


def test_a_stream_ends_when_its_client_leaves_also_with_requests_behind_it(
    start_server: Callable[..., Server], person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    server, voter, post_id = start_server(LIVE_STREAMS_PER_USER="1"), make_person(), make_post(person)
    for behind in (0, 3):
        deadline = time.monotonic() + 10
        with connected(server.url, person, f"posts={post_id}") as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * behind)
            time.sleep(0.2)
        for number in range(100):  # With requests behind it, the server notices when it sends.
            send("PUT" if number % 2 == 0 else "DELETE", f"{server.url}/posts/{post_id}/vote", voter)
            if httpx2.head(f"{server.url}/live?posts={post_id}", headers=person.headers).status_code == 200:
                break
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_without_streams_the_poller_reads_nothing(
    client: TestClient, person: Person, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_STREAM_SECONDS", (1.0, 1.0))

    def polls() -> int:
        return sum("AS ends_before" in statement or "EXECUTE" in statement for statement in statements)

    with counted_queries(database) as statements:
        time.sleep(0.6)
        assert polls() == 0
        assert '"reason":"expired"' in client.get("/live?topics=me", headers=person.headers).text
        assert polls() >= 3
        time.sleep(0.6)
        of_stream = polls()
        time.sleep(0.6)
        assert polls() == of_stream
