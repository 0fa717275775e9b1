"""Traces by FastAPI's own OpenTelemetry: sent to a configured collector only."""

import gzip
import importlib.util
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx2
import pytest

from tests.fixtures import Person, Server
from tests.observability.test_log_format import lines_when

TIMEOUT_SECONDS = 60
StartServer = Callable[..., Server]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter") is None, reason="requirements-tracing.lock is not installed"
)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that accepts everything: its address, and the paths and bodies that it received.

    Requested before the server that sends, which waits at its end until the last spans are accepted.
    """
    came: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", came
        server.shutdown()


def test_requests_are_traced_and_their_lines_name_the_trace(
    collector: tuple[str, list[tuple[str, bytes]]], start_server: StartServer, person: Person
) -> None:
    address, came = collector
    server = start_server(
        LOG_FORMAT="json",
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
        OTEL_SERVICE_NAME="social-posts-of-this-test",
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    httpx2.get(f"{server.url}/posts/1", headers={**person.headers, "X-Request-ID": "traced"})
    httpx2.post(f"{server.url}/login", data={"username": "canary@example.com", "password": "canary-password"})

    lines = lines_when(server, lambda lines: any(line.get("request_id") == "traced" for line in lines))
    (trace_id,) = [bytes.fromhex(line["trace_id"]) for line in lines if line.get("request_id") == "traced"]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not all(any(wanted in body for _, body in came) for wanted in (b"/posts/{id}", b"POST /login")):
        assert time.monotonic() < deadline, came
        time.sleep(0.05)

    everything = b"".join(body for _, body in came)
    assert trace_id in everything
    assert b"social-posts-of-this-test" in everything
    assert b"/readyz" not in everything
    assert b"canary" not in everything
    assert person.token.encode() not in everything
    assert not [path for path, _ in came if path.endswith("/v1/logs")]


def test_nothing_is_sent_without_an_endpoint(
    collector: tuple[str, list[tuple[str, bytes]]], start_server: StartServer, person: Person
) -> None:
    address, came = collector
    server = start_server(LOG_FORMAT="json", OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="100")
    httpx2.get(f"{server.url}/posts", headers={**person.headers, "X-Request-ID": "untraced"})

    lines = lines_when(server, lambda lines: any(line.get("request_id") == "untraced" for line in lines))
    server.process.terminate()
    assert server.process.wait(timeout=30) == 0  # What is still to be sent is sent as it ends.
    assert came == []
    assert not [line for line in lines if "trace_id" in line]
