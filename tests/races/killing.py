"""Killing the servers' connections while they work."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from sqlalchemy import Connection, text

from app.database.engines import dispose
from tests.races.conftest import Call, Crowd, statuses

KILL = text("""
    SELECT pg_terminate_backend(pid), pid FROM pg_stat_activity
    WHERE application_name = 'social-posts' AND datname = current_database() AND pid <> pg_backend_pid()
""")


@contextmanager
def backends_killed(connection: Connection, crowd: Crowd, *, every_seconds: float = 0.1) -> Iterator[set[int]]:
    """Kill all backends of the servers again and again.

    The connection has no other use meanwhile.

    Yields the process ids of those that were killed so far.
    """
    dispose()  # So that no backend of this process is taken for one of a server.
    killed: set[int] = set()
    is_over = Event()

    def kill() -> None:
        while not is_over.wait(every_seconds):
            killed.update(row.pid for row in connection.execute(KILL))

    with ThreadPoolExecutor(max_workers=1) as thread:
        killing = thread.submit(kill)
        try:
            yield killed
        finally:
            is_over.set()
        killing.result()
    # The servers are those of other tests too: let them find out now which of their pooled connections are closed.
    while 503 in statuses(crowd.send([Call("GET", path) for path in ("/users/0", "/readyz") for _ in range(40)])):
        pass
