"""Two servers behind each proxy of deploy/: no client can take either away from the others."""

import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from tests.deploy.conftest import PROXIES, Proxy
from tests.figures import Figure
from tests.fixtures import EMPTIED, Server, _server, free_port, linked

PASSWORD = "correct horse battery"
StartProxy = Callable[..., Proxy]
HOSTILE_INTERVAL_SECONDS = 0.05


class Relay:
    """A relay before a server that answers `/cut` by closing the connection.

    It passes on everything else.

    `/garbled` is answered with a head that no proxy can read.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.cut_count = 0
        self.port = 0

    @contextmanager
    def listening(self) -> Iterator["Relay"]:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.server_port)) as server:
            threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
            while data := client.recv(65536):
                if re.match(rb"[A-Z]+ /cut", data):
                    self.cut_count += 1
                    break
                if re.match(rb"[A-Z]+ /garbled", data):
                    self.cut_count += 1
                    client.sendall(b"HTTP/1.1 200 OK\r\nBroken header\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
                    break
                server.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pass_on(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers on one database."""
    from app.database.engines import get_engine

    with get_engine().begin() as connection:
        for table in EMPTIED:
            connection.execute(text(f"DELETE FROM {table}"))
    settings = {"WORKERS": "1", "TRUSTED_PROXIES": "127.0.0.1", "RATE_LIMIT_PER_MINUTE": "100000"}
    with ExitStack() as stack:
        yield [stack.enter_context(_server(tmp_path_factory.mktemp("server"), settings)) for _ in range(2)]


@pytest.fixture
def relays(servers: list[Server]) -> Iterator[list[Relay]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Relay(port_of(server)).listening()) for server in servers]


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def signed_in(client: httpx2.Client) -> dict[str, str]:
    account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
    assert client.post("/users", json=account).status_code == 201
    answer = client.post("/login", data={"username": account["email"], "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.parametrize("name", PROXIES)
def test_the_second_page_of_a_search_for_300_chinese_characters_comes_through(
    start_proxy: StartProxy, servers: list[Server], name: str
) -> None:
    words = "".join(chr(0x4E00 + 300 * PROXIES.index(name) + number) for number in range(300))
    with start_proxy(name, *map(port_of, servers)).client() as client:
        headers = signed_in(client)
        for _ in range(5):
            client.post("/posts", json={"title": words, "content": words}, headers=headers)
        pages = [client.get("/posts", params={"search": words, "limit": 2}, headers=headers)]
        while (following := linked(pages[-1])) is not None:
            pages.append(client.get(following, headers=headers))

    assert [page.status_code for page in pages] == [200] * 3
    assert [len(page.json()) for page in pages] == [2, 2, 1]
    assert all(len(page.headers.get("Link", "")) <= 2048 for page in pages)


def hostile_requests(client: httpx2.Client, headers: dict[str, str]) -> list[Callable[[], Any]]:
    """Return requests that could make a proxy count a server as failed."""
    words = "字" * 300
    return [
        lambda: client.get("/cut"),
        lambda: client.get("/garbled"),
        lambda: client.post("/cut", json={}),
        lambda: client.get("/posts%0a", headers=headers),
        lambda: client.get(f"/posts?limit=1&search={words}&{'x=y&' * 3000}", headers=headers),
        lambda: client.get("/posts", headers=headers | {"X-Long": "x" * 15_000}),
        lambda: client.options(
            "/posts",
            headers={
                "Origin": "http://localhost:3000",
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "x" * 15_000,
            },
        ),
        lambda: client.post("/login", content=b"x" * 100, headers={"Upgrade": "h2c", "Connection": "Upgrade"}),
        lambda: client.get("/posts", headers=headers | {"Upgrade": "websocket", "Connection": "Upgrade"}),
        lambda: client.get("/cut"),
    ]


@pytest.mark.parametrize("name", PROXIES)
def test_a_client_whose_requests_fail_takes_no_server_away_from_others(
    start_proxy: StartProxy, relays: list[Relay], figure: Figure, name: str
) -> None:
    proxy = start_proxy(name, *(relay.port for relay in relays))
    is_over = threading.Event()
    with proxy.client() as honest, proxy.client("127.0.0.1") as hostile:
        headers = signed_in(honest)
        honest.post("/posts", json={"title": "t", "content": "c"}, headers=headers)
        requests = hostile_requests(hostile, headers)
        sent_count = 0

        def attack() -> None:
            nonlocal sent_count
            while not is_over.wait(HOSTILE_INTERVAL_SECONDS):
                with suppress(httpx2.TransportError):
                    requests[sent_count % len(requests)]()
                sent_count += 1

        attacker = threading.Thread(target=attack)
        attacker.start()
        try:
            statuses: list[int] = []
            # On a connection each, because every process of nginx has its own record of failed servers.
            alone = headers | {"Connection": "close"}
            while len(statuses) < 200 or sent_count < 2 * len(requests):
                statuses.append(honest.get("/posts", headers=alone).status_code)
        finally:
            is_over.set()
            attacker.join()

    cut_count = sum(relay.cut_count for relay in relays)
    figure(
        f"{name}: {sent_count} hostile requests, {cut_count} of them without an answer;"
        f" {statuses.count(200)} of {len(statuses)} of others answered 200"
    )
    assert cut_count >= 4
    assert set(statuses) == {200}


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_that_is_down_is_passed_over(start_proxy: StartProxy, servers: list[Server], name: str) -> None:
    with start_proxy(name, free_port(), port_of(servers[0])).client() as client:
        headers = signed_in(client)
        statuses = [client.get("/posts", headers=headers).status_code for _ in range(40)]
        statuses += [client.post("/posts", json={"title": "t", "content": "c"}, headers=headers).status_code]

    assert set(statuses[:-1]) == {200}
    assert statuses[-1] == 201
