"""The end of waits at shutdown. What the watchdog does while serving is tested with frozen servers in tests/chaos."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from app.database import watchdog


@contextmanager
def waits_ending() -> Iterator[None]:
    """End waits 50 ms after the block has begun."""
    timer = Timer(0.05, watchdog.end_waits)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        watchdog.allow_waits()


def test_a_statement_that_is_answered_soon_is_spared_at_shutdown(database: Engine) -> None:
    with database.begin() as connection, waits_ending():
        connection.execute(text("SELECT pg_sleep(0.2)"))
        assert connection.scalar(text("SELECT 1")) == 1


def test_a_longer_wait_ends_at_shutdown(database: Engine) -> None:
    began_at = time.monotonic()
    with pytest.raises(DBAPIError) as caught, database.begin() as connection, waits_ending():
        connection.execute(text("SELECT pg_sleep(9)"))

    assert isinstance(caught.value.orig, watchdog.ServerSilent)
    assert time.monotonic() - began_at < 5
