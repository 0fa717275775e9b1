"""Clients that are slow on purpose (slowhttptest) are cut off by the proxies of deploy/, without effect on others."""

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.deploy.conftest import PROXIES, Proxy
from tests.figures import Figure
from tests.fixtures import Server
from tests.programs import find_program

# All at once; one address may have as many.
SLOW_COUNT = 90
# Of both proxies, for a head, and between two pieces of a body or of an answer.
CUT_AFTER_SECONDS = 10
# HAProxy has as long again for what TLS has left in its buffers; and a machine with much else to do is late.
SLACK_SECONDS = 25
StartProxy = Callable[..., Proxy]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("slowhttptest"),
]


class Attack(NamedTuple):
    """The number of connections at the proxy, and when they had ended (None: not within the wait)."""

    most: int
    gone_after_seconds: float | None


def slow_connections(proxy: Proxy) -> int:
    """Counted at the proxy's side, because slowhttptest does not detect closed connections.

    Of what a proxy has closed, the kernel may go on to offer the rest for a while.
    """
    return sum(
        connection.laddr.port == proxy.port and connection.raddr[0] == "127.0.0.1"
        for connection in psutil.net_connections("tcp4")
        if connection.raddr and connection.status == psutil.CONN_ESTABLISHED
    )


def attack(proxy: Proxy, folder: Path, *options: str, path: str = "/") -> Attack:
    """Run slowhttptest until its connections have ended or the wait is over."""
    patience_seconds = CUT_AFTER_SECONDS + SLACK_SECONDS + 10
    command = [
        find_program("slowhttptest"), *options, "-c", str(SLOW_COUNT), "-r", str(SLOW_COUNT),
        "-l", str(patience_seconds + 60), "-u", proxy.url + path, "-v", "0", "-p", "60",
    ]  # fmt: skip
    began_at = time.monotonic()
    most = 0
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while (seconds := time.monotonic() - began_at) < patience_seconds:
                count = slow_connections(proxy)
                most = max(most, count)
                # One more is its own look at whether the server still answers.
                if most >= SLOW_COUNT // 2 and count <= 1:
                    return Attack(most, seconds)
                time.sleep(0.2)
        finally:
            process.kill()
    return Attack(most, None)


@contextmanager
def honest_client(proxy: Proxy) -> Iterator[list[float]]:
    """Send ten requests a second while the block runs; yield the seconds of each 200."""
    seconds: list[float] = []
    wrong: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        with proxy.client() as client:
            while not is_over.wait(0.1):
                began_at = time.monotonic()
                answer = client.get("/openapi.json")
                seconds.append(time.monotonic() - began_at)
                if answer.status_code != 200:
                    wrong.append((answer.status_code, answer.text))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        is_over.set()
        thread.join()
    assert not wrong


def assert_cut_while_others_are_served(attack: Attack, honest_seconds: list[float], figure: Figure) -> None:
    assert attack.most >= SLOW_COUNT // 2, f"there was no attack: {attack}"
    assert attack.gone_after_seconds is not None, f"they are still there: {attack}"
    assert attack.gone_after_seconds <= CUT_AFTER_SECONDS + SLACK_SECONDS
    assert len(honest_seconds) > 20
    slowest, median = max(honest_seconds), statistics.median(honest_seconds)
    assert median < 1
    assert slowest < 5
    figure(
        f"{attack.most} slow connections gone after {attack.gone_after_seconds:.0f} s; meanwhile {len(honest_seconds)}"
        f" answers in {1000 * median:.0f} ms (median), {1000 * slowest:.0f} ms at most"
    )


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize(
    ("mode", "path"),
    [
        # A header every 3 seconds, for ever.
        (["-H", "-i", "3"], "/"),
        # A body of which nothing comes for longer than the limit.
        (["-B", "-i", "20", "-t", "POST"], "/users"),
        # Ten times half a megabyte, of which a few bytes are read now and then.
        (["-X", "-k", "10", "-w", "10", "-y", "20", "-n", "5", "-z", "32"], "/openapi.json"),
    ],
    ids=["slow heads", "slow bodies", "slow reading"],
)
def test_slow_clients_are_cut_off_and_others_are_served_meanwhile(
    start_proxy: StartProxy, server: Server, tmp_path: Path, figure: Figure, name: str, mode: list[str], path: str
) -> None:
    proxy = start_proxy(name, int(server.url.rpartition(":")[2]))

    with honest_client(proxy) as honest_seconds:
        seen = attack(proxy, tmp_path, *mode, path=path)

    assert_cut_while_others_are_served(seen, honest_seconds, figure)


def test_a_body_that_drips_is_cut_off_by_haproxy(
    start_proxy: StartProxy, server: Server, tmp_path: Path, figure: Figure
) -> None:
    proxy = start_proxy("haproxy", int(server.url.rpartition(":")[2]))

    with honest_client(proxy) as honest_seconds:
        seen = attack(proxy, tmp_path, "-B", "-i", "3", "-t", "POST", path="/users")

    assert_cut_while_others_are_served(seen, honest_seconds, figure)


def test_a_body_that_drips_reaches_no_server_through_nginx(
    start_proxy: StartProxy, server: Server, tmp_path: Path
) -> None:
    proxy = start_proxy("nginx", int(server.url.rpartition(":")[2]))

    with honest_client(proxy):
        attack(proxy, tmp_path, "-B", "-i", "3", "-t", "POST", path="/users")

    assert '"POST","path":"/users"' not in server.log.read_text()
