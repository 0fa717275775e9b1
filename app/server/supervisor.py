"""The HTTP server: listening socket, worker processes and shutdown.

The supervisor process imports few modules, because its workers cannot start before its imports are done.
"""

import gc
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.supervisors import ChangeReload, Multiprocess

from app.config import ConfigurationError, get_settings
from app.observability import log_format
from app.observability.multiprocess import sharing

logger = logging.getLogger("app")

# Called once the server responds, with its address and the problem that /readyz reports, if any.
Announce = Callable[[str, str | None], None]

_BACKLOG = 2048
_CODE = Path(__file__).resolve().parent.parent
# The kernel disconnects a client that reads no part of its response for this long, even if the request is done or the
# connection is closing. Linux only. The proxies of deploy/ wait 10 s.
_STALLED_MILLISECONDS = 30_000
# Maximum unsent bytes in the kernel. Without this limit it buffers up to 4 MB, uncounted, for each connection.
_UNSENT_BYTES = 128 * 1024
_MAX_SHUTDOWN_SECONDS = 30
# A client's messages name topics: 200 posts take 4 KB.
_MAX_WEBSOCKET_MESSAGE_BYTES = 16 * 1024
_WEBSOCKET_PING_SECONDS = 15
# Garbage collection threshold of the youngest generation (Python: 700). Reference counting frees most objects.
_NEW_OBJECTS_BETWEEN_COLLECTIONS = 20_000


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Listen on HOST and PORT.

    Bind before migrating, so that a second instance fails at once on the occupied port. Raises `ConfigurationError`.
    """
    with _bound(get_settings().host, get_settings().port) as listener:
        if get_settings().port == 0:  # Mails name the port.
            os.environ["PORT"] = str(listener.getsockname()[1])
            get_settings.cache_clear()
        yield listener


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option, value in (("TCP_USER_TIMEOUT", _STALLED_MILLISECONDS), ("TCP_NOTSENT_LOWAT", _UNSENT_BYTES)):
            if hasattr(socket, option):  # Connections inherit it.
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        remedy = "choose another with HOST and PORT, as in PORT=8001"
        if isinstance(error, socket.gaierror):
            remedy = (
                "HOST has no such address; conda sets it to the name of a compiler: unset HOST, or set HOST=127.0.0.1"
            )
        raise ConfigurationError(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}") from None
    return listener


def serve(listener: socket.socket, announce: Announce, *, reloads: bool = False) -> None:
    """Serve until SIGTERM (exit status 0) or SIGINT (raises KeyboardInterrupt).

    With `reloads`, one worker serves, and is replaced when a file of the package changes.
    """
    settings = get_settings()
    _ = settings.signing_secret  # Else a key that cannot be kept would fail each login, not the start.
    workers = settings.worker_count
    config = Config(
        "app.server.supervisor:worker",
        factory=True,
        workers=workers,
        reload=reloads,
        reload_dirs=[str(_CODE)] if reloads else None,
        log_config=log_format.config(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="app.server.http_protocol:Protocol",
        # `Protocol` uses it for one path.
        ws="app.server.websocket_protocol:WebSocketProtocol",
        ws_max_size=_MAX_WEBSOCKET_MESSAGE_BYTES,
        ws_ping_interval=_WEBSOCKET_PING_SECONDS,
        ws_ping_timeout=_WEBSOCKET_PING_SECONDS,
        # It would cost memory for each connection, and messages are short.
        ws_per_message_deflate=False,
        # `TrustedProxies` evaluates the forwarding headers. uvicorn must not trust them from every client.
        proxy_headers=False,
        # Longer than proxies keep an idle connection (60 s is usual). If the proxy closes first, no request is lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_MAX_SHUTDOWN_SECONDS,
        # A worker that does not respond for this long hangs. uvicorn's 5 s are too short to start on a busy machine.
        timeout_worker_healthcheck=30,
    )
    threading.Thread(target=_announce_when_it_answers, args=(_address(listener), announce), daemon=True).start()
    if reloads:
        ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
        return
    if workers > 1:
        with _folder_of_workers():
            _Supervisor(config, [listener]).run()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _OneWorker(config).run([listener])


@contextmanager
def _folder_of_workers() -> Iterator[None]:
    """The folder of the workers' shared metrics.

    Raises `ConfigurationError` if no temporary folder can be created.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sharing())
        except OSError as error:
            raise ConfigurationError(
                f"several workers need a folder for temporary files ({error.strerror}): mount one at /tmp, name one in"
                " TMPDIR, or set WORKERS=1"
            ) from None
        yield


def worker() -> ASGIApp:
    """Return the application for uvicorn.

    The worker ends when its parent process has ended for any reason.
    """
    gc.disable()  # As in __main__.py.
    from app.main import app  # noqa: PLC0415 - the application is built in the process that serves it.

    # Exclude imported objects from garbage collection. It would pause requests for 0.1 s, twice a second under load.
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    gc.enable()
    if (parent := multiprocessing.parent_process()) is not None:

        def end_with_parent() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end_with_parent, name="end with parent", daemon=True).start()
    return app


def _log_stop(number: int) -> None:
    logger.info(
        "stopping: signal=%s; requests in progress have at most %d s",
        signal.Signals(number).name, _MAX_SHUTDOWN_SECONDS,
    )  # fmt: skip


class _OneWorker(Server):
    """The server of a single worker."""

    stop_signal: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Logged in `shutdown`, because a signal can arrive while a line is being written.
        self.stop_signal = self.stop_signal or sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.stop_signal is not None:
            _log_stop(self.stop_signal)
        await super().shutdown(sockets)


class _Supervisor(Multiprocess):
    """The supervisor of several workers.

    Raises KeyboardInterrupt after SIGINT ended them.
    """

    is_interrupted = False

    def init_processes(self) -> None:
        # A terminal sends Ctrl-C to the workers too. They ignore it until they can handle it, to avoid tracebacks.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, handler)

    def handle_int(self) -> None:
        self.is_interrupted = True
        _log_stop(signal.SIGINT)
        super().handle_int()

    def handle_term(self) -> None:
        _log_stop(signal.SIGTERM)
        super().handle_term()

    def run(self) -> None:
        super().run()
        if self.is_interrupted:
            raise KeyboardInterrupt


def _address(listener: socket.socket) -> str:
    """The URL of the server for clients on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - replaced, not listened on.
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce_when_it_answers(address: str, announce: Announce) -> None:
    open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    while True:
        try:
            with open_url(f"{address}/readyz", timeout=30):
                return announce(address, None)
        except HTTPError as error:
            return announce(address, json.loads(error.read())["detail"])
        except (OSError, ValueError):
            logging.getLogger(__name__).debug("no response from the server yet")
            time.sleep(0.05)
