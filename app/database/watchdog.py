"""Client-side timeouts for PostgreSQL.

They also end waits for a frozen server, whose process is stopped or whose disk is paused. `statement_timeout` runs in
the frozen server, and its kernel still acknowledges packets. So neither PostgreSQL nor TCP ends the wait. One thread
per process therefore shuts the socket of each connection whose statement, commit or rollback is not answered within its
`statement_timeout` and `MARGIN_SECONDS`. The blocked thread gets `ServerSilent`.

If no other connection to that host was answered in the meantime, the host is silent. Its other connections are shut
too. New ones are refused at once, until a host of the URL answers a query. One thread per host probes for that.
docs/decisions/0022-shut-the-sockets-of-a-frozen-postgresql.md has the reasons and the figures.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any, Literal, ParamSpec, TypeVar
from weakref import WeakSet

import psycopg2
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError

logger = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Host = tuple[str, int]

# Added to `statement_timeout` for the network. No statement runs longer than `statement_timeout`. So when the first
# connection to a frozen host is overdue, that host's last answer is older than this margin.
MARGIN_SECONDS = 1.0
SCAN_INTERVAL_SECONDS = 0.25
PROBE_INTERVAL_SECONDS = 0.5
# Below the margin, to distinguish a single connection without an answer from a silent server.
BEAT_INTERVAL_SECONDS = 0.5
# At shutdown a wait may last this long. Most statements take milliseconds; background threads have a second to end.
END_WAITS_AFTER_SECONDS = 0.5
DEFAULT_PORT = 5432
_STATEMENT_TIMEOUT_SECONDS = "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float"


class ServerSilent(psycopg2.OperationalError):
    """The server did not answer in time. Whether it executed the statement is unknown."""


def is_server_silent(error: object) -> bool:
    """Whether the error is `ServerSilent`, plain or wrapped by SQLAlchemy."""
    return isinstance(error.orig if isinstance(error, DBAPIError) else error, ServerSilent)


class GuardedCursor(psycopg2.extensions.cursor):
    """A cursor whose statements the watchdog bounds.

    Rows come with the answer, so fetching never waits.
    """

    connection: "GuardedConnection"

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name.
        """Run one statement."""
        connection = self.connection
        connection.bounded(super().execute, query, vars)
        connection.answered_at = time.monotonic()

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Run the statement once per parameter set, each with its own timeout."""
        for values in vars_list:
            self.execute(query, values)


class GuardedConnection(psycopg2.extensions.connection):
    """A connection whose socket the watchdog shuts when an answer is overdue."""

    def __init__(self, *arguments: Any, server: "Server", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = GuardedCursor
        self.server = server
        self.host: Host = (self.info.host, self.info.port)
        # The maximum duration of one wait; None: no limit.
        self.session_limit_seconds: float | None = server.limit_seconds
        self.limit_seconds: float | None = server.limit_seconds
        self.waits_since: float | None = None
        self.answered_at = 0.0
        self.is_given_up = False
        # A second descriptor of the socket, because the number of libpq's own is reused as soon as libpq closes it.
        try:
            self._descriptor: int | None = os.dup(self.fileno())
        except OSError as error:
            raise psycopg2.OperationalError(f"cannot guard the connection: {error.strerror}") from error
        _watchdog.add(self)

    def bounded(
        self, call: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        """Call a function that waits for the server.

        Raises `ServerSilent` if the watchdog ended the wait.
        """
        self.waits_since = time.monotonic()
        try:
            return call(*arguments, **options)
        except psycopg2.Error as error:
            # With an SQLSTATE, the server answered just before its connection was given up.
            if self.is_given_up and error.pgcode is None:
                raise ServerSilent("the database server did not answer in time") from error
            raise
        finally:
            self.waits_since = None

    def commit(self) -> None:
        """Commit.

        Only the watchdog ends a commit that waits for a standby; `statement_timeout` does not.
        """
        self.limit_seconds = self.session_limit_seconds
        self.bounded(super().commit)

    def rollback(self) -> None:
        """Roll back."""
        self.limit_seconds = self.session_limit_seconds
        self.bounded(super().rollback)

    def set_client_encoding(self, encoding: str) -> None:
        """Set the encoding, with a query to the server."""
        self.bounded(super().set_client_encoding, encoding)

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._release()

    def __del__(self) -> None:
        self._release()

    def is_overdue(self, now: float) -> bool:
        """Whether the connection has waited for an answer longer than its limit."""
        since, limit = self.waits_since, self.limit_seconds
        return since is not None and limit is not None and now - since > limit

    def give_up(self) -> None:
        """Shut the socket.

        A waiting thread gets an error, and the pool opens a new connection. Thread-safe.
        """
        self.is_given_up = True
        with _watchdog.lock, suppress(OSError):  # Raised if the server has already closed it.
            if self._descriptor is not None:
                handle = socket.socket(fileno=self._descriptor)
                try:
                    handle.shutdown(socket.SHUT_RDWR)
                finally:
                    handle.detach()

    def _release(self) -> None:
        with _watchdog.lock:
            descriptor, self._descriptor = getattr(self, "_descriptor", None), None
            if descriptor is not None:
                os.close(descriptor)


class Server:
    """A server whose connections the watchdog guards independently of each other."""

    def __init__(self, limit_seconds: float) -> None:
        """Set the maximum wait of connections that have no limit of their own."""
        self.limit_seconds = limit_seconds

    def guard(self, engine: Engine) -> None:
        """Guard all connections of the engine. It must not have any connection yet."""
        event.listen(engine, "do_connect", lambda _dialect, _record, *arguments: self.connect(*arguments))
        event.listen(engine, "checkout", _require_usable)

    def connect(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> GuardedConnection:
        """Connect, with the arguments of SQLAlchemy's `do_connect` event."""
        factory = partial(GuardedConnection, server=self)
        connection: GuardedConnection = psycopg2.connect(*arguments, **parameters, connection_factory=factory)
        return connection

    def overdue(self, connection: GuardedConnection) -> None:
        """End the wait of a connection."""
        connection.give_up()


class Primary(Server):
    """The primary: one or several hosts of a URL.

    While none of them answers, connections are refused at once. The host that answered last is tried first. So a
    connection does not wait for a frozen host each time. After a failover, connections stay with the new primary, even
    if the former one returns and still accepts writes.
    """

    def __init__(self, statement_timeout_seconds: float, connect_timeout_seconds: int, *, is_pooled: bool) -> None:
        """Set the limits.

        A pooler takes none at connect, so there the watchdog's limit always applies.
        """
        super().__init__(statement_timeout_seconds + MARGIN_SECONDS)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._is_pooled = is_pooled
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._probed: set[Host | None] = set()
        self._preferred: Host | None = None
        self._last: tuple[Sequence[Any], Mapping[str, Any]] | None = None
        self._beating: GuardedConnection | None = None

    def connect(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> GuardedConnection:
        """Connect to the first host that fits the URL.

        Raises `ServerSilent` at once while no host answers.
        """
        if self._silent_since is not None:
            raise ServerSilent("the database server does not answer")
        self._last = (arguments, parameters)
        hosts = sorted(_hosts(parameters), key=lambda host: host != self._preferred)
        timeout_seconds = self._timeout_seconds(hosts)
        began_at = time.monotonic()
        try:
            connection = self._open(arguments, parameters, hosts)
        except psycopg2.OperationalError as error:
            # A server that is down refuses within milliseconds. This one, or the network, drops packets.
            if time.monotonic() - began_at < timeout_seconds / 2:
                raise
            self._fall_silent()
            raise ServerSilent(str(error)) from error
        self._answer(connection)
        return connection

    def beat(self) -> None:
        """Send a heartbeat query on a reserved connection.

        For one thread, every `BEAT_INTERVAL_SECONDS`. So a process without requests also detects a silent server and
        gives up its connections to it. Errors are not logged here: they are logged already, or will fail requests too.
        """
        if self._last is None:
            return
        try:
            if self._beating is None:
                self._beating = self.connect(*self._last)
                self._beating.autocommit = True
                # The query is short, so it has a limit even if statements have none.
                self._beating.limit_seconds = self._beating.session_limit_seconds = self.limit_seconds
            with self._beating.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            self.end_beat()

    def end_beat(self) -> None:
        """Close the connection of `beat`."""
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.close()

    def overdue(self, connection: GuardedConnection) -> None:
        """End the wait of a connection, and of all others if the whole host is silent."""
        connection.give_up()
        if self._silent_since is not None:
            return
        others = [
            other
            for other in _watchdog.connections()
            if other.server is self and other.host == connection.host and not other.is_given_up
        ]
        now = time.monotonic()
        if any(now - other.answered_at < MARGIN_SECONDS for other in others):
            logger.warning("gave up a connection to %s:%s without an answer; others are answered", *connection.host)
            return
        for other in others:
            other.give_up()
        self._fall_silent()

    def _timeout_seconds(self, hosts: Sequence[Host]) -> int:
        """The connect timeout of one host.

        All hosts together take no longer than a statement. libpq accepts only whole seconds.
        """
        return max(1, min(self._connect_timeout_seconds, int(self.limit_seconds) // max(1, len(hosts))))

    def _open(
        self, arguments: Sequence[Any], parameters: Mapping[str, Any], hosts: Sequence[Host]
    ) -> GuardedConnection:
        """Connect to one of the hosts and read its `statement_timeout`.

        Without hosts, the parameters name them.
        """
        there = {"host": ",".join(name for name, _ in hosts), "port": ",".join(str(port) for _, port in hosts)}
        timeout = {"connect_timeout": self._timeout_seconds(hosts)}
        connection = super().connect(arguments, {**parameters, **timeout, **(there if hosts else {})})
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_STATEMENT_TIMEOUT_SECONDS)
                ((seconds,),) = cursor.fetchall()
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        if seconds or not self._is_pooled:
            connection.limit_seconds = connection.session_limit_seconds = seconds + MARGIN_SECONDS if seconds else None
        return connection

    def _fall_silent(self) -> None:
        assert self._last is not None  # noqa: S101 - a connection was tried.
        arguments, parameters = self._last
        with self._lock:
            if self._silent_since is not None:
                return
            self._silent_since = time.monotonic()
            hosts: set[Host | None] = {*_hosts(parameters)} or {None}
            hosts -= self._probed
            self._probed |= hosts
        logger.warning("the database does not answer: its connections were given up, and requests get 503")
        for host in hosts:
            probe = partial(self._probe, host, arguments, parameters)
            try:
                threading.Thread(target=probe, name="database probe", daemon=True).start()
            except RuntimeError:  # No thread can be started, so let requests try to connect again.
                with self._lock:
                    self._silent_since = None
                    self._probed.discard(host)

    def _probe(self, host: Host | None, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Try to connect to the host until one of them answers."""
        while self._is_probed(host):
            try:
                connection = self._open(arguments, parameters, [host] if host else [])
            except Exception:  # Continue after any error, because only a probe ends the silent state.
                time.sleep(PROBE_INTERVAL_SECONDS)
            else:
                self._answer(connection)
                connection.close()

    def _is_probed(self, host: Host | None) -> bool:
        with self._lock:
            if self._silent_since is None:
                self._probed.discard(host)
            return self._silent_since is not None

    def _answer(self, connection: GuardedConnection) -> None:
        """Record that the connection's host answered a query."""
        with self._lock:
            self._preferred = connection.host
            since, self._silent_since = self._silent_since, None
        if since is not None:
            seconds = time.monotonic() - since
            logger.warning("the database answers again at %s:%s, after %.1f s", *connection.host, seconds)


def lift_limit(connection: Connection, scope: Literal["LOCAL", "SESSION"]) -> None:
    """Remove the statement timeout until the end of the transaction or of the session."""
    connection.execute(text(f"SET {scope} statement_timeout = 0"))
    driver_connection = connection.connection.driver_connection
    if isinstance(driver_connection, GuardedConnection):
        driver_connection.limit_seconds = None
        if scope == "SESSION":
            driver_connection.session_limit_seconds = None


def end_waits() -> None:
    """Give up all connections that wait for an answer for more than `END_WAITS_AFTER_SECONDS`. For shutdown.

    Until `allow_waits`, this includes connections that begin to wait. Shorter waits are spared: a mail that was just
    sent would be sent again if its row could not be updated.
    """
    _watchdog.is_ending = True
    _watchdog.look()


def allow_waits() -> None:
    """Apply the connections' own limits again."""
    _watchdog.is_ending = False


def _require_usable(connection: GuardedConnection, *_: Any) -> None:
    if connection.is_given_up:
        raise DisconnectionError("the watchdog gave the connection up")


def _hosts(parameters: Mapping[str, Any]) -> list[Host]:
    """The hosts of the URL if there are several.

    Empty for one host, or with `hostaddr`.
    """
    names = str(parameters.get("host") or "").split(",")
    if len(names) == 1 or "hostaddr" in parameters:
        return []
    ports = str(parameters.get("port") or "").split(",")
    return [(name, int(port or DEFAULT_PORT)) for name, port in zip(names, cycle(ports), strict=False)]


class _Watchdog:
    """The thread that checks all guarded connections of the process.

    The first connection starts it.
    """

    def __init__(self) -> None:
        # Reentrant, because `__del__` of a connection also takes it, at any time.
        self.lock = threading.RLock()
        self.is_ending = False
        self._connections: WeakSet[GuardedConnection] = WeakSet()
        self._thread: threading.Thread | None = None

    def add(self, connection: GuardedConnection) -> None:
        with self.lock:
            self._connections.add(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()

    def connections(self) -> list[GuardedConnection]:
        with self.lock:
            return list(self._connections)

    def _watch(self) -> None:
        while True:
            began_at = time.monotonic()
            time.sleep(SCAN_INTERVAL_SECONDS)
            # After a longer sleep, this process was stopped or had no CPU. Let it read pending answers first.
            if time.monotonic() - began_at < SCAN_INTERVAL_SECONDS + MARGIN_SECONDS:
                try:
                    self.look()
                except Exception:
                    logger.exception("the watchdog failed; it continues")

    def look(self) -> None:
        now = time.monotonic()
        for connection in self.connections():
            if connection.is_given_up:
                continue
            if connection.is_overdue(now):
                connection.server.overdue(connection)
            elif self.is_ending and now - (connection.waits_since or now) > END_WAITS_AFTER_SECONDS:
                connection.give_up()


_watchdog = _Watchdog()
