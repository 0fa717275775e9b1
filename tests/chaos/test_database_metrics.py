"""Metrics of a server without requests, while PostgreSQL is stopped or frozen."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.chaos.conftest import Postgres
from tests.figures import Figure
from tests.fixtures import Server
from tests.scraping import TOKEN, sample, scrape

pytestmark = pytest.mark.slow

STATEMENT_TIMEOUT_SECONDS = 2
# A check every 15 s with up to 20 % jitter, and what the statement may take.
MAX_UNNOTICED_SECONDS = 18 + STATEMENT_TIMEOUT_SECONDS
# What a busy machine gets beyond the promise.
SLACK_SECONDS = 15


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop(signal.SIGINT)
    try:
        yield
    finally:
        postgres.start()


def seconds_until_database_up_is(value: float, server: Server) -> tuple[float, float]:
    """Scrape until `database_up` has the value.

    Return the seconds that this took, and those of the slowest scrape.
    """
    began_at, slowest = time.monotonic(), 0.0
    while True:
        scraped_at = time.monotonic()
        found = scrape(server.url)
        now = time.monotonic()
        slowest = max(slowest, now - scraped_at)
        if sample(found, "database_up") == value:
            return now - began_at, slowest
        assert now - began_at < MAX_UNNOTICED_SECONDS + SLACK_SECONDS, f"database_up is not {value}"
        time.sleep(0.1)


@pytest.mark.parametrize("fault", [stopped, Postgres.frozen], ids=["stopped", "frozen"])
def test_database_up_follows_the_database_without_requests(
    start: Callable[..., Server],
    postgres: Postgres,
    figure: Figure,
    fault: Callable[[Postgres], AbstractContextManager[None]],
) -> None:
    server = start(WORKERS="2", METRICS_TOKEN=TOKEN, DATABASE_STATEMENT_TIMEOUT_SECONDS=str(STATEMENT_TIMEOUT_SECONDS))
    seconds_until_database_up_is(1, server)

    with fault(postgres):
        down_after, slowest = seconds_until_database_up_is(0, server)
    up_after, _ = seconds_until_database_up_is(1, server)

    figure(
        f"{fault.__name__}: database_up is 0 after {down_after:.1f} s, and 1 again {up_after:.1f} s after the end;"
        f" the slowest scrape took {slowest:.2f} s"
    )
    assert slowest < STATEMENT_TIMEOUT_SECONDS
