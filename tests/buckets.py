"""A bucket of a real server that speaks S3 (moto), behind a proxy that can hang, refuse, and fail half-way."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Literal

import httpx2
import pytest

from tests.fixtures import READY_WITHIN_SECONDS, free_port

NAME = "pictures"
# As few that a test of pages needs few files.
PAGE_SIZE = 5
# `hang`: no answer. `late`: no answer, but the effect. `cut`: half of the content. Else a status.
Fault = Literal["hang", "late", "cut", 403, 404, 500]


@dataclass
class BucketServer:
    """The address of a bucket, what was asked of it, and how it fails: `fault("PUT", "/pictures/ab/…")`."""

    endpoint: str
    storage: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
    freed: Event = field(default_factory=Event)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "MEDIA_S3_BUCKET": NAME,
            "MEDIA_S3_ENDPOINT": self.endpoint,
            "MEDIA_S3_ACCESS_KEY_ID": "key",
            "MEDIA_S3_SECRET_ACCESS_KEY": "canary-secret",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process store pictures there."""
        from pydantic import SecretStr

        from app.config import get_settings

        for name, value in self.settings.items():
            kept = SecretStr(value) if "SECRET" in name else value
            monkeypatch.setattr(get_settings(), name.lower(), kept)

    def fail(self, method: str, fault: Fault, *, after: int = 0) -> None:
        """Let requests with this method fail, except for the first ones."""
        left = after

        def choose(asked: str, _: str) -> Fault | None:
            nonlocal left
            if asked != method:
                return None
            left -= 1
            return None if left >= 0 else fault

        self.fault = choose

    def work(self) -> None:
        self.fault = lambda _method, _path: None

    def files(self) -> set[str]:
        found: set[str] = set()
        while True:
            after = {"start-after": max(found)} if found else {}
            page = httpx2.get(f"{self.storage}/{NAME}", params={"list-type": "2", **after}).text
            keys = {part.partition("</Key>")[0] for part in page.split("<Key>")[1:]}
            if not keys:
                return found
            found |= keys

    def write(self, key: str, content: bytes) -> None:
        assert httpx2.put(f"{self.storage}/{NAME}/{key}", content=content).status_code == 200

    def clear(self) -> None:
        for key in self.files():
            signed = {"Authorization": "AWS key:unchecked"}
            assert httpx2.delete(f"{self.storage}/{NAME}/{key}", headers=signed).status_code == 204


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: BucketServer

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.bucket.asked.append((self.command, self.path))
        fault = self.bucket.fault(self.command, self.path)
        self.close_connection = True
        if fault in {"hang", "late"}:
            self.bucket.freed.wait(30)
        if fault == "hang":
            return
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        found = httpx2.request(
            self.command, self.bucket.storage + self.path, content=content, headers=headers, timeout=30
        )
        if fault == "late":
            return
        self.send_response(found.status_code)
        for name, value in found.headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "content-encoding", "content-length"}:
                self.send_header(name, value)
        length = found.headers.get("Content-Length") if self.command == "HEAD" else str(len(found.content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.content[: len(found.content) // 2] if fault == "cut" else found.content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, *_: object) -> None: ...  # A client that no longer waits.


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log: Path = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--port", str(port)],
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_SIZE)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                assert httpx2.put(f"{address}/{NAME}", timeout=30).status_code == 200
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def bucket(_s3_server: str) -> Iterator[BucketServer]:
    """An empty bucket that works, until `bucket.fail(…)`."""
    handler = type("Handler", (_Handler,), {})
    with _Proxy(("127.0.0.1", 0), handler) as proxy:
        served = BucketServer(f"http://127.0.0.1:{proxy.server_address[1]}", _s3_server)
        handler.bucket = served  # type: ignore[attr-defined]
        served.clear()
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield served
        served.freed.set()
        proxy.shutdown()
