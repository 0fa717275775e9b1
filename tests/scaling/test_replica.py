"""One process and a streaming replica: when a batch may read there, and what it does otherwise."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, create_engine, text

from app.cli import doctor
from app.config import get_settings
from app.database.engines import _batch_engine
from app.database.replica import Replica
from tests.scaling.conftest import Replicated, dsn

MakeReplica = Callable[..., Replicated]
TIMEOUT_SECONDS = 20
NAMES = text("SELECT statement FROM pg_prepared_statements")


class Reader:
    """A process that counts rows: `read()` returns where it read, and the count."""

    def __init__(self, replica: Replica, primary: Connection) -> None:
        self._replica, self._primary = replica, primary
        self.slow_on_replica_seconds = 0.0
        self._run = replica.first(self._ask)

    def _ask(self, connection: Connection, items: Sequence[None]) -> list[tuple[str, int]]:
        is_replica, count = connection.execute(
            text("SELECT pg_is_in_recovery(), count(*), pg_sleep(CASE WHEN pg_is_in_recovery() THEN :s ELSE 0 END)"
                 " FROM noted"),
            {"s": self.slow_on_replica_seconds},
        ).one()[:2]  # fmt: skip
        return [("replica" if is_replica else "primary", count) for _ in items]

    def read(self) -> tuple[str, int]:
        (answer,) = self._run(self._primary, [None])
        assert not isinstance(answer, Exception)
        return answer

    def keep_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it never came"
            self._replica.keep()
            time.sleep(0.05)

    def keep_until_replica_has(self, count: int) -> None:
        self.keep_until(lambda: self.read() == ("replica", count))


@pytest.fixture
def noted(primary: Replicated) -> Iterator[Connection]:
    """The primary, with a table to write rows to; each is committed at once."""
    with primary.connect() as connection:
        connection.execute(text("CREATE TABLE noted ()"))
        yield connection
        connection.execute(text("DROP TABLE noted"))


def note(connection: Connection) -> None:
    connection.execute(text("INSERT INTO noted DEFAULT VALUES"))


@contextmanager
def reading(
    monkeypatch: pytest.MonkeyPatch, primary: Replicated, replica: Replicated, options: str = "", database: str = ""
) -> Iterator[Reader]:
    """Nothing keeps the connection to the replica but the test."""
    engine = create_engine(primary.url.update_query_dict({"options": options}), isolation_level="AUTOCOMMIT")
    # The application's own database is not the one that has a replica here.
    monkeypatch.setattr("app.database.replica.writing", engine.begin)
    url = replica.url.set(database=database or replica.url.database)
    there = Replica(_batch_engine("replica", 1, {"statement_timeout": "1s"}, url=url))
    with engine.connect() as connection:
        yield Reader(there, connection)
    there.close()
    engine.dispose()


def test_a_batch_reads_from_the_replica_and_finds_what_was_written_just_before(
    primary: Replicated, replica: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(monkeypatch, primary, replica) as reader:
        assert reader.read() == ("primary", 0)  # No batch opens the connection.
        reader.keep_until_replica_has(0)
        answers = []
        for _ in range(300):
            note(noted)
            answers.append(reader.read())

    assert [count for _, count in answers] == list(range(1, 301))
    assert sum(where == "replica" for where, _ in answers) > 30


def test_commit_that_does_not_wait_for_the_disk_is_found_too(
    primary: Replicated, replica: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted.execute(text("SET synchronous_commit = off"))
    with reading(monkeypatch, primary, replica, "-c synchronous_commit=off") as reader:
        reader.keep_until_replica_has(0)
        counts = []
        for _ in range(30):
            note(noted)
            counts.append(reader.read()[1])
            time.sleep(0.02)  # In some of these pauses the replica's position is read again.
        assert counts == list(range(1, 31))
        reader.keep_until_replica_has(30)


def test_replica_that_is_behind_is_not_read_until_it_has_caught_up(
    primary: Replicated, replica: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(monkeypatch, primary, replica) as reader, replica.connect() as standby:
        reader.keep_until_replica_has(0)
        standby.execute(text("SELECT pg_wal_replay_pause()"))
        try:
            for number in (1, 2):
                note(noted)
                assert reader.read() == ("primary", number)
                time.sleep(0.15)
        finally:
            standby.execute(text("SELECT pg_wal_replay_resume()"))
        reader.keep_until_replica_has(2)


def test_statements_are_prepared_on_the_replica(
    primary: Replicated, replica: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert noted
    with reading(monkeypatch, primary, replica) as reader:
        reader.keep_until_replica_has(0)
        line = reader._replica._connection
        assert line is not None
        assert "pg_last_wal_replay_lsn" in str(line.scalars(NAMES).all())
        assert line.scalar(text("SHOW plan_cache_mode")) == "force_generic_plan"


def test_reads_that_time_out_on_the_replica_go_to_the_primary(
    primary: Replicated, replica: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert noted
    with reading(monkeypatch, primary, replica) as reader:
        reader.keep_until_replica_has(0)
        line = reader._replica._connection
        reader.slow_on_replica_seconds = 30
        assert reader.read() == ("primary", 0)
        reader.slow_on_replica_seconds = 0
        reader.keep_until_replica_has(0)
        assert reader._replica._connection is line, "it was slow, and not lost"


def test_other_database_and_server_that_is_no_replica_are_not_read(
    primary: Replicated,
    replica: Replicated,
    noted: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert noted
    for server, database in ((replica, "postgres"), (primary, "")):
        caplog.clear()
        with caplog.at_level(logging.WARNING), reading(monkeypatch, primary, server, database=database) as reader:
            for _ in range(2):
                reader._replica._connects_at = 0
                reader._replica.keep()
                assert reader.read() == ("primary", 0)
            assert reader._replica._connection is None
        assert caplog.text.count("the replica cannot be used: it is no replica of the primary, or does not") == 1


def test_doctor_says_how_the_replica_is(primary: Replicated, replica: Replicated) -> None:
    settings = get_settings().model_copy(update={"database_replica_url": SecretStr(dsn(replica.url))})

    def found() -> list[str]:
        return [str(each) for each in doctor.examine(primary.engine, settings, is_full=False) if "replica" in each.what]

    with replica.connect() as standby, primary.connect() as connection:
        well, clock = found()
        standby.execute(text("SELECT pg_wal_replay_pause()"))
        try:
            connection.execute(text("CREATE TABLE noted (); DROP TABLE noted"))
            behind, _ = found()
        finally:
            standby.execute(text("SELECT pg_wal_replay_resume()"))
        connection.execute(text("ALTER DATABASE social_posts SET synchronous_commit = off"))
        try:
            *_, careless = found()
        finally:
            connection.execute(text("ALTER DATABASE social_posts RESET synchronous_commit"))

    assert well == "ok    replica: it follows the primary and answers reads"
    assert clock.startswith("ok    replica: clock: ")
    assert behind.startswith("warn  replica: more than 2 s behind, so the primary answers reads; check for ")
    assert careless.startswith("warn  replica: synchronous_commit is off")


@pytest.mark.slow
def test_replica_that_is_gone_is_read_again_when_it_is_back(
    primary: Replicated, make_replica: MakeReplica, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = make_replica()
    with reading(monkeypatch, primary, replica) as reader:
        reader.keep_until_replica_has(0)
        replica.stop(signal.SIGQUIT)
        note(noted)
        assert reader.read() == ("primary", 1)
        began_at = time.monotonic()
        for _ in range(20):
            reader.read()
        assert time.monotonic() - began_at < 5, "only the keeper tries to connect"
        replica.start()
        reader.keep_until_replica_has(1)


@pytest.mark.slow
def test_replica_that_falls_silent_is_cut_off_and_read_again_when_it_answers(
    primary: Replicated, make_replica: MakeReplica, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = make_replica()
    with reading(monkeypatch, primary, replica) as reader:
        reader.keep_until_replica_has(0)
        replica.signal(signal.SIGSTOP)
        note(noted)
        with keeping(reader):
            began_at = time.monotonic()
            assert reader.read() == ("primary", 1)
            assert time.monotonic() - began_at < 7, "two seconds, but for a busy machine"
        replica.signal(signal.SIGCONT)
        reader.keep_until_replica_has(1)


@pytest.mark.slow
def test_replica_that_was_promoted_is_not_read(
    primary: Replicated, make_replica: MakeReplica, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = make_replica()
    with reading(monkeypatch, primary, replica) as reader, replica.connect() as promoted:
        reader.keep_until_replica_has(0)
        replica.promote()
        for _ in range(5):
            note(promoted)  # Of another history, in which everything looks newer.
        note(noted)
        for _ in range(3):
            assert reader.read() == ("primary", 1)
            reader._replica._connects_at = 0
            reader._replica.keep()
            assert reader._replica._connection is None


@pytest.mark.slow
def test_replica_of_the_former_primary_is_not_read_however_far_it_is(
    primary: Replicated, make_replica: MakeReplica, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_primary, replica = make_replica(), make_replica()
    next_primary.wait_for(primary)
    next_primary.promote()
    for _ in range(100):
        note(noted)
    replica.wait_for(primary)
    with next_primary.connect() as connection:
        note(connection)
        assert connection.scalar(text("SELECT pg_current_wal_flush_lsn() < :l"), {"l": position_of(replica)})
        with reading(monkeypatch, next_primary, replica) as reader:
            for _ in range(3):
                reader._replica._connects_at = 0
                reader._replica.keep()
                assert reader.read() == ("primary", 1)


@pytest.mark.slow
def test_replica_that_follows_the_new_primary_is_read_after_its_next_restart_point(
    make_replica: MakeReplica, primary: Replicated, noted: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_primary = make_replica()
    replica = make_replica(next_primary)
    note(noted)
    replica.wait_for(primary)
    with reading(monkeypatch, primary, replica) as reader:
        reader.keep_until_replica_has(1)
    next_primary.promote()
    with next_primary.connect() as connection, replica.connect() as standby:
        note(connection)
        connection.execute(text("CHECKPOINT"))
        with reading(monkeypatch, next_primary, replica) as reader:
            assert reader.read() == ("primary", 2)
            replica.wait_for(next_primary)
            standby.execute(text("CHECKPOINT"))
            reader.keep_until_replica_has(2)


def position_of(replica: Replicated) -> str:
    with replica.connect() as connection:
        return str(connection.scalar(text("SELECT pg_last_wal_replay_lsn()::text")))


@contextmanager
def keeping(reader: Reader) -> Iterator[None]:
    """Keep the connection meanwhile, as the application's thread does."""
    is_over = threading.Event()

    def keep() -> None:
        while not is_over.wait(0.1):
            reader._replica.keep()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
