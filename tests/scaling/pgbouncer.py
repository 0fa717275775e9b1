"""A PgBouncer in transaction mode in front of one PostgreSQL."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import URL

from app.dev import postgres
from tests.fixtures import free_port
from tests.programs import find_program

TIMEOUT_SECONDS = 20
# Fewer than one worker needs, so that each transaction may get another server connection than the one before.
POOL_SIZE = 4
needs_pgbouncer = pytest.mark.needs("pgbouncer")


@contextmanager
def pgbouncer(folder: Path, url: URL) -> Iterator[URL]:
    """Yield the URL through it."""
    folder.mkdir()
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(f"""
        [databases]
        * = host={url.host} port={url.port} user={url.username} password={url.password}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        max_client_conn = 300
        default_pool_size = {POOL_SIZE}
        """)
    account = postgres._account_for(folder)  # As PostgreSQL, it refuses to run as root.
    for path in (folder, settings):
        path.chmod(0o700)
        if account:
            os.chown(path, account["user"], account["group"])
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [find_program("pgbouncer"), settings], cwd="/", stdout=output, stderr=output, **account
        )
    through = url.set(port=port)
    try:
        _wait_until_it_answers(through, process, log)
        yield through
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_answers(url: URL, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            psycopg2.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)).close()
        except psycopg2.OperationalError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"PgBouncer does not answer: {log.read_text()[-2000:]}")
