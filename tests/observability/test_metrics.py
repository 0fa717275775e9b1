"""/metrics: access, correct sums over several workers, and no label chosen by clients."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from starlette.testclient import TestClient

from app import __version__
from app.models.security_event import Event
from app.observability import metrics
from app.security import audit_log
from tests.conftest import administration
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.fixtures import Person, Server
from tests.scraping import TOKEN, Samples, processes_below, sample, samples_of, scrape, scrapes

PRODUCTION = {"ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10"}
REQUESTS = 60

StartServer = Callable[..., Server]


@pytest.fixture
def local_client(client: TestClient) -> TestClient:  # noqa: ARG001 - on empty tables.
    """A client on this machine."""
    from app.main import app

    return TestClient(app, client=("127.0.0.1", 50000))


def counted(client: TestClient) -> Samples:
    return samples_of(client.get("/metrics").text)


def ask(url: str, path: str, times: int, headers: dict[str, str] | None = None) -> set[int]:
    """Send so many requests, each on its own connection, so that all workers get some.

    Returns their statuses.
    """

    def one(_: int) -> int:
        return httpx2.get(url + path, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(8) as threads:
        return set(threads.map(one, range(times)))


def test_in_development_this_machine_may_read_them_and_no_other(client: TestClient, local_client: TestClient) -> None:
    response = local_client.get("/metrics")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    head = local_client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")
    assert_refused(client.get("/metrics"), 404, "not_found", "Not Found")
    assert_refused(local_client.post("/metrics"), 405, "method_not_allowed")


def test_they_have_the_version(local_client: TestClient) -> None:
    assert sample(counted(local_client), "build_info", version=__version__) == 1


def test_in_production_metrics_require_a_token(start_server: StartServer) -> None:
    server = start_server(**PRODUCTION)

    assert_refused(httpx2.get(f"{server.url}/metrics"), 404, "not_found", "Not Found")


def test_the_token_opens_them_and_nothing_else_does(start_server: StartServer, person: Person) -> None:
    server = start_server(METRICS_TOKEN=TOKEN, **PRODUCTION)

    for refused in (
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        f"Bearer {person.token}",
    ):
        assert_unauthenticated(httpx2.get(f"{server.url}/metrics", headers={"Authorization": refused}))
    assert_unauthenticated(httpx2.get(f"{server.url}/metrics", headers={b"Authorization": "Bearer é".encode()}))
    assert_unauthenticated(httpx2.get(f"{server.url}/metrics?token={TOKEN}"))
    assert scrape(server.url)


def test_a_request_is_counted_by_the_template_of_its_route(local_client: TestClient, person: Person) -> None:
    before = counted(local_client)
    for path in ("/posts/1", "/v1/posts/2/", "/posts/3?limit=1"):
        assert local_client.get(path, headers=person.headers).status_code == 404
    assert local_client.head("/posts", headers=person.headers).status_code == 200
    after = counted(local_client)

    def more(name: str, **labels: str) -> float:
        return sample(after, name, **labels) - sample(before, name, **labels)

    assert more("http_requests_total", method="GET", route="/posts/{id}", status="404") == 3
    assert more("http_request_duration_seconds_count", method="GET", route="/posts/{id}") == 3
    assert more("http_request_duration_seconds_sum", method="GET", route="/posts/{id}") > 0
    assert more("http_requests_total", method="HEAD", route="/posts", status="200") == 1


def test_nothing_that_a_client_sends_becomes_a_label(local_client: TestClient) -> None:
    canary = f"canary{secrets.token_hex(8)}"
    known = set(counted(local_client)) | {
        (name, frozenset({("method", method), ("route", "none"), *extra}))
        for method in ("GET", "none")
        for name, extra in (
            ("http_requests_total", {("status", "404")}),
            *(("http_request_duration_seconds" + suffix, set()) for suffix in ("_sum", "_count")),
        )
    }
    for number in range(20):
        headers = {"X-Request-ID": canary, "Authorization": f"Bearer {canary}", "User-Agent": canary}
        local_client.get(f"/{canary}/{number}", headers=headers)
        local_client.request(f"{canary.upper()}{number}", f"/{canary}")
        local_client.post("/login", data={"username": f"{canary}@example.com", "password": canary})
    text = local_client.get("/metrics").text

    assert canary not in text.lower()
    new = {key for key in samples_of(text) if key not in known and not key[0].endswith("_bucket")}
    assert {dict(labels)["route"] for _, labels in new if "route" in dict(labels)} <= {"/login", "/metrics", "none"}
    assert {dict(labels)["method"] for _, labels in new if "method" in dict(labels)} <= {"GET", "POST", "none"}


def test_borrowed_connections_are_given_back_even_when_they_were_killed(
    database: Engine, local_client: TestClient
) -> None:
    def in_use() -> float:
        return sample(counted(local_client), "database_connections_in_use", pool="requests")

    before = in_use()
    borrowed = database.connect()
    process_id = borrowed.scalar(text("SELECT pg_backend_pid()"))
    assert in_use() == before + 1
    with administration(database.url) as killer:
        killer.execute(text("SELECT pg_terminate_backend(:id)"), {"id": process_id})
    with pytest.raises(DBAPIError):
        borrowed.execute(text("SELECT 1"))
    borrowed.close()

    assert in_use() == before
    assert sample(counted(local_client), "database_pool_size", pool="requests") > 0


def test_events_and_limits_are_counted_by_their_names(local_client: TestClient) -> None:
    before = counted(local_client)
    audit_log.record(None, Event.SIGNED_IN, 1)
    metrics.limit_reached("sign_in_of_account")
    after = counted(local_client)

    for name, labels in {
        "security_events_total": {"event": "signed_in"},
        "limits_reached_total": {"limit": "sign_in_of_account"},
    }.items():
        assert sample(after, name, **labels) == sample(before, name, **labels) + 1


def test_every_worker_tells_the_sum_of_all(start_server: StartServer, person: Person) -> None:
    server = start_server(WORKERS="2", METRICS_TOKEN=TOKEN)

    assert ask(server.url, "/posts", REQUESTS, person.headers) == {200}
    assert ask(server.url, "/posts", REQUESTS) == {401}

    wanted = {("200", REQUESTS), ("401", REQUESTS)}
    for found in scrapes(server.url):
        got = {
            (status, sample(found, "http_requests_total", method="GET", route="/posts", status=status))
            for status in ("200", "401")
        }
        if got == wanted:
            break
    for _ in range(10):
        found = scrape(server.url)
        assert sample(found, "http_request_duration_seconds_count", method="GET", route="/posts") == 2 * REQUESTS
        assert sample(found, "batch_wait_seconds_count", queue="pages") == REQUESTS
        assert sample(found, "batch_size_sum", queue="pages") == REQUESTS
        turns = sample(found, "batch_duration_seconds_count", queue="pages")
        assert 0 < turns == sample(found, "batch_size_count", queue="pages") <= REQUESTS
        assert sample(found, "batch_wait_seconds_bucket", queue="pages", le="+Inf") == REQUESTS
        assert {worker for worker in "0123" if sample(found, "process_resident_memory_bytes", worker=worker)} == {
            "0",
            "1",
        }


@pytest.mark.slow
def test_a_killed_worker_takes_no_count_with_it_and_leaves_nothing_in_use(
    start_server: StartServer, person: Person
) -> None:
    server = start_server(WORKERS="2", METRICS_TOKEN=TOKEN)

    def answered(found: Samples) -> float:
        return sample(found, "http_requests_total", method="GET", route="/posts", status="200")

    def started(found: Samples) -> dict[str, float]:
        return {worker: at for worker in "0123" if (at := sample(found, "process_start_time_seconds", worker=worker))}

    def pool_size(found: Samples) -> float:
        return sample(found, "database_pool_size", pool="requests")

    ask(server.url, "/posts", REQUESTS, person.headers)
    found = next(found for found in scrapes(server.url) if answered(found) == REQUESTS)
    before, size = started(found), pool_size(found)
    assert set(before) == {"0", "1"}

    for killed in (1, 2):  # Both times the place of the killed worker is reused, and no third is made.
        victim, survivor = processes_below(server.process.pid)
        os.kill(victim, signal.SIGKILL)
        for found in scrapes_while_a_worker_is_away(server.url):
            if len(started(found)) == 2 and started(found) != before and pool_size(found) == size > 0:
                break
        assert survivor in processes_below(server.process.pid)
        assert answered(found) == killed * REQUESTS
        before = started(found)

        ask(server.url, "/posts", REQUESTS, person.headers)
        for found in scrapes(server.url):
            if answered(found) == (killed + 1) * REQUESTS:
                break
        assert set(started(found)) == {"0", "1"}
        assert sample(found, "database_connections_in_use", pool="queues") == 0


def scrapes_while_a_worker_is_away(url: str) -> Iterator[Samples]:
    """Only connections that the killed worker had accepted break."""
    broken = 0
    while True:
        try:
            yield from scrapes(url)
        except httpx2.TransportError:
            broken += 1
            assert broken < 5


def test_shared_files_of_the_workers_are_removed_with_the_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(WORKERS="2", TMPDIR=str(tmp_path))
    (folder,) = tmp_path.glob("social-posts-workers-*")
    deadline = time.monotonic() + 30  # The server is ready as soon as one of its workers is.
    while {path.name for path in folder.glob("*.lock")} != {"0.lock", "1.lock"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    server.process.terminate()

    assert server.process.wait(timeout=30) == 0
    assert not folder.exists()
