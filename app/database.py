"""The engine and its sessions: the one place that commits and rolls back.

Ordinary requests use `SessionDep`: one request, one transaction, committed before the answer is sent. Hot requests
use connections of their own (`at_once`, `writing`), handed to them by a `Batcher`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Annotated

from fastapi import Depends
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.orm import Session

from app.config import ConfigurationError, get_settings
from app.passwords import HASHING_THREAD_COUNT

# The lane of reads, the lane of votes (two, where answers are kept), /readyz, and each hashing thread.
OTHER_CONNECTION_COUNT = 4 + HASHING_THREAD_COUNT


@lru_cache
def get_engine() -> Engine:
    """The process's only engine. Its pool has a connection for everybody who may want one, so that nobody waits in it.

    Raises `ConfigurationError` where no database is configured.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or start with: python -m app run")
    return create_engine(
        settings.database,
        pool_size=settings.database_pool_size + OTHER_CONNECTION_COUNT,
        max_overflow=0,
        connect_args={"connect_timeout": settings.database_connect_timeout_seconds, "application_name": "social-posts"},
    )


@contextmanager
def transaction() -> Iterator[Session]:
    """A session whose changes are committed when the block ends, and rolled back when it raises."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session


def get_db() -> Iterator[Session]:
    """One transaction for one request."""
    with transaction() as session:
        yield session


def at_once() -> AbstractContextManager[Connection]:
    """A connection without transactions: each statement sees what was committed before it, and is committed itself."""
    return get_engine().connect().execution_options(isolation_level="AUTOCOMMIT")


def writing() -> AbstractContextManager[Connection]:
    """A connection whose changes are committed when the block ends, and rolled back when it raises."""
    return get_engine().begin()


# scope="function" ends the transaction before the response is sent: nobody is told of a write that then fails.
# max_concurrency keeps requests from waiting in threads for a connection that other waiting threads hold.
SessionDep = Annotated[Session, Depends(get_db, scope="function", max_concurrency=get_settings().database_pool_size)]
