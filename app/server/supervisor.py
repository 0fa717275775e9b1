"""Serving HTTP: the listening socket, one process or several, and how they end.

The process that starts the others imports little: they cannot begin before it has.
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
from typing import TYPE_CHECKING
from urllib.error import HTTPError

from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

from app.config import ConfigurationError, get_settings
from app.observability import log_format
from app.observability.multiprocess import sharing

if TYPE_CHECKING:
    from fastapi import FastAPI

# Called once the server answers: with its address, and with what /readyz says is wrong, if anything.
Announce = Callable[[str, str | None], None]

_BACKLOG = 2048
# The system disconnects a client that takes nothing of its answer for so long, also when the request is done or the
# connection is closing. Linux only. The proxies of deploy/ wait 10 s.
_STALLED_MILLISECONDS = 30_000
# What the system keeps of an answer that it cannot send yet. Else it takes up to 4 MB, uncounted, for each connection.
_UNSENT_BYTES = 128 * 1024
# So many new objects before the collector looks for rubbish among them (Python: 700). Most go without it.
_NEW_OBJECTS_BETWEEN_COLLECTIONS = 20_000


@contextmanager
def listening() -> Iterator[socket.socket]:
    """The socket on HOST and PORT. It listens at once: of two who start, the second is told, and nobody later.

    Raises `ConfigurationError`.
    """
    with _bound(get_settings().host, get_settings().port) as listener:
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


def serve(listener: socket.socket, announce: Announce) -> None:
    """Serve until SIGTERM, which ends it with exit status 0, or SIGINT, which raises KeyboardInterrupt."""
    settings = get_settings()
    workers = settings.worker_count
    config = Config(
        "app.server.supervisor:worker",
        factory=True,
        workers=workers,
        log_config=log_format.config(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="app.server.http_protocol:Protocol",
        # There is nothing to upgrade to.
        ws="none",
        # Who called is what the socket says; a header that anybody can send is not believed.
        proxy_headers=False,
        # Longer than proxies keep an idle connection (60 s is usual): who closes first loses no request on its way.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
        # A worker that is silent for so long hangs; uvicorn's five seconds are too few to start on a busy machine.
        timeout_worker_healthcheck=30,
    )
    threading.Thread(target=_announce_when_it_answers, args=(_address(listener), announce), daemon=True).start()
    if workers > 1:
        with _folder_of_workers():
            _Supervisor(config, [listener]).run()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(config).run([listener])


@contextmanager
def _folder_of_workers() -> Iterator[None]:
    """The folder in which workers count together. Raises `ConfigurationError` where no temporary file can be made."""
    with ExitStack() as stack:
        try:
            stack.enter_context(sharing())
        except OSError as error:
            raise ConfigurationError(
                f"several workers need a folder for temporary files ({error.strerror}): mount one at /tmp, name one in"
                " TMPDIR, or set WORKERS=1"
            ) from None
        yield


def worker() -> "FastAPI":
    """The application, for uvicorn; in a process that ends when the one that started it has gone, however it went."""
    gc.disable()  # As in __main__.py.
    from app.main import app  # noqa: PLC0415 - the application is built in the process that serves it.

    # What was imported stays. Looking through it for rubbish would stop everybody for 0.1 s, twice a second under load.
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
    gc.enable()
    if (parent := multiprocessing.parent_process()) is not None:

        def end_with_parent() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end_with_parent, name="end with parent", daemon=True).start()
    return app


class _Supervisor(Multiprocess):
    """Several worker processes; raises KeyboardInterrupt after SIGINT ended them."""

    is_interrupted = False

    def init_processes(self) -> None:
        # A terminal sends Ctrl-C to the workers too; ignored until they can handle it, it never ends in a traceback.
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().init_processes()
        signal.signal(signal.SIGINT, ours)

    def handle_int(self) -> None:
        self.is_interrupted = True
        super().handle_int()

    def run(self) -> None:
        super().run()
        if self.is_interrupted:
            raise KeyboardInterrupt


def _address(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - replaced, not listened on.
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce_when_it_answers(address: str, announce: Announce) -> None:
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    while True:
        try:
            with ask(f"{address}/readyz", timeout=30):
                return announce(address, None)
        except HTTPError as refusal:
            return announce(address, json.loads(refusal.read())["detail"])
        except (OSError, ValueError):
            logging.getLogger(__name__).debug("no answer yet")
            time.sleep(0.05)
