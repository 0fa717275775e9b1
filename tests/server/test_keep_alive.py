"""A server keeps idle connections for longer than the proxy before it does."""

import socket
import time
from collections.abc import Callable

import pytest

from tests.fixtures import Server


@pytest.mark.slow
def test_connection_that_was_idle_for_a_while_takes_another_request(start_server: Callable[..., Server]) -> None:
    port = int(start_server().url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for pause_seconds in (0, 8):
            time.sleep(pause_seconds)
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
