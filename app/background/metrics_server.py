"""`GET /metrics` of the background worker, on a port of its own."""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer

from app.config import ConfigurationError, Settings
from app.errors import DomainError, NotFound
from app.observability import metrics

logger = logging.getLogger(__name__)

# The server handles one request at a time, so a slow client delays scrapes. It can do so only for this long.
MAX_REQUEST_SECONDS = 5


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """Serve `/metrics` in a thread during the block, if `WORKER_METRICS_PORT` is set.

    Raises `ConfigurationError`.
    """
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    if port is None:
        yield
        return
    try:
        server = _Server(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}); change WORKER_METRICS_HOST or WORKER_METRICS_PORT"
        ) from None
    with server:
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        logger.info("serving worker metrics: host=%s port=%d", host, port)
        try:
            yield
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def handle(self) -> None:
        timer = threading.Timer(MAX_REQUEST_SECONDS, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            super().handle()
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError):  # The connection is closed already.
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        try:
            if self.path.partition("?")[0] != "/metrics":
                raise NotFound
            metrics.authorize(self.headers.get("Authorization", ""), self.client_address[0])
        except DomainError as error:
            self._respond(error.status, f"{error.detail}\n".encode(), {**error.headers, "Content-Type": "text/plain"})
        else:
            self._respond(200, metrics.render(), {"Content-Type": metrics.CONTENT_TYPE})

    def _respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Cache-Control": "no-store"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name.
        logger.debug(format, *args)


class _Server(TCPServer):
    """A TCP server for the handler.

    `http.server.HTTPServer` would also look up its own name in the DNS.
    """

    allow_reuse_address = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__((str(address[0]), port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Log the exception that a request raised.

        A connection closed by the client is no error of ours.
        """
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        logger.log(level, "scrape failed", exc_info=True)
