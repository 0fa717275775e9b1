"""A frozen PostgreSQL, whose kernel still accepts bytes, keeps no request and no server waiting."""

import asyncio
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os import environ
from urllib.parse import urlencode

import httpx2
import psutil
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from app.database import watchdog
from app.security.passwords import hash_password
from tests.chaos.conftest import Postgres, miscounted
from tests.chaos.load import Answer, Answers, Client, for_seconds, press
from tests.chaos.test_faults import Writers, clients_of
from tests.conftest import ROOT
from tests.figures import Figure
from tests.fixtures import Person, Server, free_port

Start = Callable[..., Server]

TIMEOUT_SECONDS = 1
# What a busy machine gets beyond the promise.
SLACK_SECONDS = 3.0
PASSWORD = "correct horse battery"
WELL = {200, 201, 202, 204, 409}


def of_every_kind(post_id: int, email: str) -> list[tuple[str, str, object, str]]:
    """Method, path, body and headers of requests that take every way to the database."""
    new = {"title": "title", "content": "content"}
    key = f"Idempotency-Key: {secrets.token_hex(8)}\r\n"
    return [
        ("GET", "/posts", None, ""),
        ("GET", f"/posts/{post_id}", None, ""),
        ("GET", "/posts?search=title", None, ""),
        ("GET", "/users/me", None, ""),
        ("GET", "/sessions", None, ""),
        ("POST", "/posts", new, ""),
        ("POST", "/posts", new, key),
        ("PUT", f"/posts/{post_id}", new, ""),
        ("PUT", f"/posts/{post_id}/vote", None, ""),
        ("POST", "/vote", {"post_id": post_id + 1, "dir": 1}, key.replace("Key: ", "Key: vote-")),
        ("POST", "/users", {"email": f"{secrets.token_hex(6)}@example.com", "password": PASSWORD}, ""),
        ("POST", "/password-reset", {"email": email}, ""),
        ("POST", "/login", urlencode({"username": email, "password": PASSWORD}), ""),
    ]


async def ask(
    server: Server, method: str, path: str, body: object = None, headers: str = "", token: str = ""
) -> Answer:
    """The answer, on a connection of its own."""
    client = Client(server.url, token)
    answer = await client.send(method, path, body, headers)
    await client.close()
    return answer


async def ask_all(server: Server, person: Person, post_id: int) -> list[Answer]:
    kinds = of_every_kind(post_id, person.email)
    return await asyncio.gather(*(ask(server, *kind, token=person.token) for kind in kinds))


def wait_until_ready(server: Server) -> float:
    """Return the seconds until ten requests in a row were answered 200, so that each worker answered."""
    began_at = time.monotonic()
    well = 0
    while well < 10:
        assert time.monotonic() - began_at < 20, "a few seconds, but for a busy machine"
        is_well = httpx2.get(f"{server.url}/readyz", timeout=10).status_code == 200
        well = well + 1 if is_well else 0
        time.sleep(0 if is_well else 0.05)
    return time.monotonic() - began_at


def held(server: Server) -> list[tuple[int, int]]:
    """Count the open files and threads of each worker."""
    workers = psutil.Process(server.process.pid).children(recursive=True)
    return [(worker.num_fds(), worker.num_threads()) for worker in workers]


def test_requests_on_a_frozen_database_get_503_in_time_and_200_once_it_resumes(
    start: Start, postgres: Postgres, people: list[Person], post_ids: list[int], figure: Figure
) -> None:
    server = start(
        WORKERS="2",
        DATABASE_STATEMENT_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS),
        RATE_LIMITS_ENABLED="true",
        PASSWORD_HASH_ROUNDS="4",
    )
    with postgres.connect() as connection:
        connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": hash_password(PASSWORD)})
    owner, post_id = people[0], post_ids[0]

    async def while_frozen() -> tuple[list[Answer], Answer, Answer, Answer]:
        asking = asyncio.create_task(ask_all(server, owner, post_id))
        ready = asyncio.create_task(ask(server, "GET", "/readyz"))
        await asyncio.sleep(0.2)
        live, metrics = await asyncio.gather(ask(server, "GET", "/livez"), ask(server, "GET", "/metrics"))
        return await asking, await ready, live, metrics

    before = asyncio.run(ask_all(server, owner, post_id))
    with postgres.frozen():
        answers, ready, live, metrics = asyncio.run(while_frozen())
        later = asyncio.run(ask_all(server, owner, post_id))
    recovered_seconds = wait_until_ready(server)
    after = asyncio.run(ask_all(server, owner, post_id))
    counted = httpx2.get(f"{server.url}/metrics").text.splitlines()
    in_use = {line.split()[-1] for line in counted if line.startswith("database_connections_in_use{")}

    slowest, later_slowest = (max(answer.seconds for answer in some) for some in (answers, later))
    figure(
        f"R21, frozen, statements cut after {TIMEOUT_SECONDS} s: {len(answers)} kinds of requests 503 after at most"
        f" {slowest:.2f} s, once more after {later_slowest:.2f} s; /readyz {ready.seconds:.2f} s, /livez"
        f" {live.seconds:.3f} s, /metrics {metrics.seconds:.3f} s; all well {recovered_seconds:.2f} s after it went on"
    )
    assert {answer.status for answer in before + after} <= WELL
    assert [answer.status for answer in answers + later] == [503] * 2 * len(answers)
    assert all(answer.headers["retry-after"] for answer in [*answers, *later, ready])
    assert max(slowest, later_slowest) < TIMEOUT_SECONDS + 2 + SLACK_SECONDS
    assert (ready.status, live.status, metrics.status) == (503, 200, 200)
    assert ready.seconds < 3 + SLACK_SECONDS
    assert max(live.seconds, metrics.seconds) < SLACK_SECONDS
    assert in_use == {"0.0"}, "what could not be connected is not counted as given back"


def test_readyz_with_long_timeouts_is_503_within_three_seconds_and_the_server_stops_during_a_request(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    server = start(WORKERS="2", DATABASE_STATEMENT_TIMEOUT_SECONDS="8")

    async def until_it_ends() -> tuple[Answer, list[Answer], float]:
        asking = [
            asyncio.create_task(ask(server, "GET", path, token=people[0].token)) for path in ("/posts", "/users/me") * 4
        ]
        ready = await ask(server, "GET", "/readyz")
        terminated_at = time.monotonic()
        server.process.terminate()
        answers = await asyncio.gather(*asking)
        await asyncio.to_thread(server.process.wait, 30)
        return ready, answers, time.monotonic() - terminated_at

    with postgres.frozen():
        ready, answers, seconds = asyncio.run(until_it_ends())

    figure(f"R21, SIGTERM with 8 requests in hand, frozen: exit {server.process.returncode} after {seconds:.1f} s")
    assert (ready.status, ready.json["code"]) == (503, "unavailable")
    assert ready.seconds < 3 + SLACK_SECONDS
    assert {answer.status for answer in answers} == {503}
    assert server.process.returncode == 0
    assert seconds < 8 + 2 + SLACK_SECONDS


def test_server_that_starts_on_a_frozen_database_logs_one_line_and_serves_once_it_resumes(
    postgres: Postgres, people: list[Person], starting: Callable[..., Server]
) -> None:
    with postgres.frozen():
        server = starting(DATABASE_STATEMENT_TIMEOUT_SECONDS="1")
        deadline = time.monotonic() + 60
        while "not ready" not in (said := server.log.read_text()):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        answer = asyncio.run(ask(server, "GET", "/users/me", token=people[0].token))
    wait_until_ready(server)

    assert answer.status == 503
    assert answer.seconds < 3 + SLACK_SECONDS
    assert "Traceback" not in said
    assert said.count("not ready: The database does not answer") == 1
    assert asyncio.run(ask(server, "GET", "/users/me", token=people[0].token)).status == 200


@pytest.fixture
def starting(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start a server without waiting until it is ready."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(**environment: str) -> Server:
        port, log = free_port(), tmp_path_factory.mktemp("starting") / "log"
        url = postgres.url.render_as_string(hide_password=False)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=ROOT,
                env={**environ, "DATABASE_URL": url, "PORT": str(port), "WORKERS": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
        return Server(f"http://127.0.0.1:{port}", process, log)

    yield begin
    for process in processes:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        process.kill()


def test_command_on_a_frozen_database_ends_with_one_line(postgres: Postgres) -> None:
    url = postgres.url.render_as_string(hide_password=False)
    with postgres.frozen():
        done = subprocess.run(
            [sys.executable, "-m", "app", "cleanup"],
            cwd=ROOT,
            env={**environ, "DATABASE_URL": url, "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the database does not answer: ")
    assert "Traceback" not in done.stderr


# One process and its connections.

LIMIT_SECONDS = TIMEOUT_SECONDS + watchdog.MARGIN_SECONDS


@pytest.fixture
def guarded(postgres: Postgres) -> Iterator[Engine]:
    """An engine with guarded connections to it, whose statements are cut after `TIMEOUT_SECONDS`."""
    options = {"options": f"-c statement_timeout={TIMEOUT_SECONDS}s"}
    engine = create_engine(postgres.url, connect_args=options, pool_size=10, max_overflow=0)
    watchdog.Primary(TIMEOUT_SECONDS, 2, is_pooled=False).guard(engine)
    yield engine
    engine.dispose()


def test_every_wait_for_a_frozen_server_is_ended(guarded: Engine, postgres: Postgres) -> None:
    fresh = create_engine(postgres.url)
    watchdog.Primary(TIMEOUT_SECONDS, 5, is_pooled=False).guard(fresh)
    lent = [guarded.connect() for _ in range(5)]
    for connection in lent:
        connection.execute(text("SELECT 1"))
    executing, committing, rolling_back, returned, idle = lent
    idle.close()
    waits: dict[str, Callable[[], object]] = {
        "statement": lambda: executing.execute(text("SELECT 1")),
        "commit": committing.commit,
        "rollback": rolling_back.rollback,
        "return to the pool": returned.close,
        "statement on a connection from the pool": lambda: guarded.connect().execute(text("SELECT 1")),
        "connect": fresh.connect,
    }

    def seconds_and_error(wait: Callable[[], object]) -> tuple[float, Exception | None]:
        began_at, error = time.monotonic(), None
        try:
            wait()
        except Exception as caught:
            error = caught
        return time.monotonic() - began_at, error

    with postgres.frozen(), ThreadPoolExecutor(len(waits)) as threads:
        found = dict(zip(waits, threads.map(seconds_and_error, waits.values()), strict=True))
        _, refused = seconds_and_error(guarded.connect)

    assert max(seconds for seconds, _ in found.values()) < LIMIT_SECONDS + SLACK_SECONDS
    # The pool itself takes care of what it meets when a connection comes back.
    errors = {wait: error for wait, (_, error) in found.items() if wait != "return to the pool"}
    assert all(watchdog.is_server_silent(error) for error in [*errors.values(), refused]), errors
    for connection in lent:
        connection.close()
    deadline = time.monotonic() + 20
    for engine in (guarded, fresh):
        while True:
            with suppress(OperationalError), engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
    fresh.dispose()


def test_connection_without_an_answer_is_given_up_alone_while_others_are_answered(guarded: Engine) -> None:
    with guarded.connect() as silent, guarded.connect() as other, ThreadPoolExecutor(1) as thread:
        silent.exec_driver_sql("SET statement_timeout = 0")  # Nothing but the watchdog will end it.
        waiting = thread.submit(silent.exec_driver_sql, "SELECT pg_sleep(20)")
        began_at = time.monotonic()
        while not waiting.done():
            other.exec_driver_sql("SELECT 1")
            time.sleep(0.05)
        assert watchdog.is_server_silent(waiting.exception())
        assert time.monotonic() - began_at < LIMIT_SECONDS + SLACK_SECONDS
        assert other.exec_driver_sql("SELECT 1").scalar() == 1
        with guarded.connect() as another:
            assert another.exec_driver_sql("SELECT 1").scalar() == 1


def test_connections_of_a_process_without_requests_are_given_up_by_its_heartbeat(postgres: Postgres) -> None:
    engine, primary = create_engine(postgres.url), watchdog.Primary(TIMEOUT_SECONDS, 2, is_pooled=False)
    primary.guard(engine)
    with engine.connect() as idle:
        primary.beat()
        assert idle.exec_driver_sql("SELECT 1").scalar() == 1
        with postgres.frozen():
            primary.beat()
            # The watchdog's thread gives up the connection of the heartbeat first, and the others just after it.
            deadline = time.monotonic() + SLACK_SECONDS
            while not idle.connection.driver_connection.is_given_up:  # type: ignore[union-attr]
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with pytest.raises(OperationalError) as caught:
            idle.exec_driver_sql("SELECT 1")
    assert watchdog.is_server_silent(caught.value)
    primary.end_beat()
    engine.dispose()


def test_statement_whose_limit_is_lifted_takes_as_long_as_it_needs_and_the_next_does_not(guarded: Engine) -> None:
    with guarded.connect() as connection:
        watchdog.lift_limit(connection, "LOCAL")
        connection.exec_driver_sql(f"SELECT pg_sleep({LIMIT_SECONDS + 0.5})")
        connection.commit()
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        with pytest.raises(OperationalError) as caught:
            connection.exec_driver_sql("SELECT pg_sleep(20)")
        assert watchdog.is_server_silent(caught.value)


def test_limit_follows_the_statement_timeout_that_the_connection_has(postgres: Postgres) -> None:
    found = {}
    for is_pooled, option in ((False, "7s"), (False, "1500ms"), (False, "0"), (True, "0"), (True, "2min")):
        engine = create_engine(postgres.url, connect_args={"options": f"-c statement_timeout={option}"})
        watchdog.Primary(10, 5, is_pooled=is_pooled).guard(engine)
        with engine.connect() as connection:
            found[is_pooled, option] = connection.connection.driver_connection.limit_seconds  # type: ignore[union-attr]
        engine.dispose()
    assert found == {
        (False, "7s"): 8,
        (False, "1500ms"): 2.5,
        (False, "0"): None,
        (True, "0"): 11,
        (True, "2min"): 121,
    }


# What takes long.


@pytest.mark.slow
def test_frozen_for_half_a_minute_again_and_again_nothing_is_lost_doubled_or_left_behind(
    start: Start, postgres: Postgres, people: list[Person], post_ids: list[int], figure: Figure
) -> None:
    """With the default timeouts, and clients that write all the time."""
    server = start(WORKERS="2")
    writers = Writers(people, post_ids)
    slowest = 0.0

    def write(until: Callable[[], bool]) -> Answers:
        return asyncio.run(press(clients_of(server, people), writers.ask, until=until))

    write(for_seconds(2))
    before = held(server)
    refused: Counter[int] = Counter()
    for seconds in (30, 3, 12, 13):
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write, for_seconds(seconds + 4))
            time.sleep(2)
            with postgres.frozen():
                time.sleep(seconds)
            answers = writing.result()
        assert set(answers.statuses) <= {200, 201, 404, 503}
        assert all(answer.headers["retry-after"] for answer in answers.with_status(503))
        refused.update(answers.statuses)
        slowest = max(slowest, *(answer.seconds for answer in answers.all))
        wait_until_ready(server)
    write(for_seconds(2))
    after = held(server)

    with postgres.connect() as connection:
        doubled = connection.scalar(
            text("SELECT count(*) - count(DISTINCT title) FROM posts WHERE title LIKE 'post %'")
        )
        idle = connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"))
        assert miscounted(connection) == 0
    lost = writers.lost(postgres)
    figure(
        f"R21, frozen for 30, 3, 12 and 13 s under 16 writers: {dict(refused)}, slowest {slowest:.2f} s; {lost} of"
        f" {writers.acknowledged_count} acknowledged writes lost, {doubled} doubled; files and threads {before} {after}"
    )
    assert (lost, doubled, idle) == (0, 0, 0)
    assert slowest < 12 + SLACK_SECONDS
    for (files, threads), (files_after, threads_after) in zip(before, after, strict=True):
        assert files_after <= files + 15, "connections that were made on demand meanwhile"
        assert threads_after <= threads + 10


@pytest.mark.slow
def test_sigterm_ends_a_server_within_its_grace_time_for_any_statement_timeout(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    server = start(WORKERS="2", DATABASE_STATEMENT_TIMEOUT_SECONDS="3600")

    async def until_it_ends() -> float:
        asking = [
            asyncio.create_task(ask(server, method, path, token=people[0].token))
            for method, path in (("GET", "/posts"), ("GET", "/users/me"), ("PUT", "/posts/1/vote"), ("GET", "/readyz"))
        ]
        await asyncio.sleep(1)
        terminated_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, 60)
        seconds = time.monotonic() - terminated_at
        await asyncio.gather(*asking)
        return seconds

    with postgres.frozen():
        seconds = asyncio.run(until_it_ends())
    figure(f"R21, SIGTERM, frozen, statements cut after an hour: exit after {seconds:.1f} s")
    assert seconds < 35
