"""Database of a command: the configured or the embedded one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import cycle

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from app.config import LOCAL_FOLDER, ConfigurationError, get_settings
from app.database import schema_version
from app.dev import postgres


def go_past_the_pooler() -> None:
    """Make this process use the direct database.

    For commands that need session state, such as temporary tables.

    Raises `ConfigurationError` if the database is reachable only through the pooler.
    """
    if (direct := get_settings().direct_database) is not None:
        os.environ["DATABASE_URL"] = direct.render_as_string(hide_password=False)
        os.environ["DATABASE_BEHIND_POOLER"] = "false"
        get_settings.cache_clear()


@contextmanager
def database(options: Mapping[str, str] | None = None) -> Iterator[str]:
    """Provide the configured database, or run the embedded server during the block.

    Yield its location as text.

    The embedded server's address is stored in the environment, so that worker processes find it. `options` are
    PostgreSQL settings, used only if this process starts that server.
    """
    configured = get_settings().database
    if configured is not None:
        require_utf8(configured, get_settings().database_connect_timeout_seconds)
        yield _place(configured)
        return
    with postgres.running(options=options) as url:
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        get_settings.cache_clear()
        folder = LOCAL_FOLDER / "postgres"
        place = folder.readlink() if folder.is_symlink() else f"{LOCAL_FOLDER.name}/"
        yield f"embedded PostgreSQL on port {url.port}, data in {place}"


def require_utf8(url: URL, connect_timeout_seconds: int = 10) -> None:
    """Raise `ConfigurationError` if the database's encoding is not UTF8.

    Other encodings cannot store every text: a post with an emoji would be refused, or stored as invalid bytes.
    An unreachable database is accepted, because servers start without it.
    """
    with _connected(url, connect_timeout_seconds) as connection:
        if connection is not None:
            _require_utf8(connection, url)


def require_usable(url: URL, connect_timeout_seconds: int) -> None:
    """Raise as `require_utf8` does, and if other software made the tables.

    A database without migrations is accepted, because servers may start before these run.
    """
    with _connected(url, connect_timeout_seconds) as connection:
        if connection is None:
            return
        _require_utf8(connection, url)
        with suppress(DBAPIError):  # A role without the privilege: /readyz reports it.
            (found,) = schema_version.check(connection, [None])
            if isinstance(found, schema_version.Health) and found.is_foreign:
                raise ConfigurationError(found.problem)


@contextmanager
def _connected(url: URL, timeout_seconds: int) -> Iterator[Connection | None]:
    """Connect for the block. None if the database cannot be reached."""
    options = {"connect_timeout": timeout_seconds, "client_encoding": "utf8"}
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=options)
    try:
        connection = engine.connect()
    except OperationalError:
        yield None
        return
    with connection:
        yield connection


def _require_utf8(connection: Connection, url: URL) -> None:
    encoding = connection.connection.driver_connection.info.parameter_status("server_encoding")  # type: ignore[union-attr]
    if encoding not in {None, "UTF8"}:  # A pooler may not report it.
        raise ConfigurationError(
            f"the encoding of database {url.database} is {encoding}, not UTF8; dump it, make one with"
            f" CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and restore it there"
        )


def _place(url: URL) -> str:
    _, found = url.get_dialect()().create_connect_args(url)
    hosts = zip(str(found.get("host")).split(","), cycle(str(found.get("port") or 5432).split(",")), strict=False)
    return ",".join(f"{host}:{port or 5432}" for host, port in hosts) + f"/{url.database}"
