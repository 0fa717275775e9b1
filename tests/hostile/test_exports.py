"""The memory that exports take, of a large account and of readers that stop."""

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.hostile.raw import connected, port_of
from tests.hostile.test_slow_readers import memory_megabytes

POSTS = 100_000
MAX_GROWTH_MEGABYTES = 25
READERS = 20
ADD = """
    INSERT INTO posts (owner_id, title, content, search)
    SELECT :id, 'title ' || n, (SELECT string_agg(md5((n * 100 + m)::text), ' ') FROM generate_series(1, 15) AS m), ''
    FROM generate_series(:first, :last) AS n
"""
# Computing what searches find would take minutes.
WITHOUT_SEARCH = "ALTER TABLE posts {} TRIGGER posts_search"
EXPORT = b"GET /users/me/export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n"


@pytest.mark.slow
def test_an_export_of_100_000_posts_takes_the_memory_of_a_batch(
    start_server: Callable[..., Server], person: Person, other_person: Person, connection: Connection, tmp_path: Path,
    figure: Figure,
) -> None:  # fmt: skip
    for start in range(0, POSTS, 10_000):
        connection.execute(text(ADD), {"id": person.id, "first": start + 1, "last": start + 10_000})
    connection.execute(text(ADD), {"id": other_person.id, "first": 1, "last": 2_000})
    server = start_server(WORKERS="1")
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        # What serving an export takes at all.
        assert client.get("/users/me/export", headers=other_person.headers).status_code == 200
        before = highest = memory_megabytes(server)
        began_at = time.monotonic()
        path = tmp_path / "export.zip"
        with client.stream("GET", "/users/me/export", headers=person.headers) as response, path.open("wb") as file:
            for number, part in enumerate(response.iter_bytes(65_536)):
                file.write(part)
                if number % 10 == 0:
                    highest = max(highest, memory_megabytes(server))
        seconds = time.monotonic() - began_at

    with zipfile.ZipFile(path) as archive:
        posts = json.loads(archive.read("posts.json"))
    assert [post["id"] for post in posts] == sorted(connection.scalars(OWN, {"id": person.id}))
    figure(
        f"export of {POSTS:,} posts: {path.stat().st_size / 1e6:.0f} MB in {seconds:.0f} s, "
        f"memory {before:.0f} MB before, {highest:.0f} MB at most"
    )
    assert highest - before < MAX_GROWTH_MEGABYTES


OWN = text("SELECT id FROM posts WHERE owner_id = :id")


@pytest.fixture(autouse=True)
def _without_search(connection: Connection) -> Iterator[None]:
    connection.execute(text(WITHOUT_SEARCH.format("DISABLE")))
    yield
    connection.execute(text(WITHOUT_SEARCH.format("ENABLE")))


@pytest.fixture
def other_person(make_person: Callable[..., Person]) -> Person:
    return make_person()


@pytest.mark.slow
def test_twenty_accounts_that_stop_reading_their_exports_cost_little(
    start_server: Callable[..., Server], make_person: Callable[..., Person], connection: Connection, figure: Figure
) -> None:
    people = [make_person() for _ in range(READERS)]
    for person in people:
        # Of the largest contents, which do not shrink.
        connection.execute(
            text("""
                INSERT INTO posts (owner_id, title, content, search)
                SELECT :id, 'title', (
                    SELECT string_agg(md5((n * 10000 + m)::text || :id), '') FROM generate_series(1, 1200) AS m
                ), '' FROM generate_series(1, 150) AS n
            """),
            {"id": person.id},
        )
    server = start_server(WORKERS="1")
    warm = httpx2.get(f"{server.url}/users/me/export", headers=people[0].headers, timeout=60)
    assert warm.status_code == 200
    before = memory_megabytes(server)
    with ExitStack() as stack:
        for person in people:
            reader = stack.enter_context(connected(port_of(server), SO_RCVBUF=4096))
            reader.sendall(EXPORT % person.token.encode())
            assert reader.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(3)
        during = memory_megabytes(server)
        seconds = []
        for _ in range(20):
            began_at = time.monotonic()
            assert httpx2.get(f"{server.url}/posts", headers=people[0].headers).status_code == 200
            seconds.append(time.monotonic() - began_at)

    figure(
        f"{READERS} exports that are not read: memory {before:.0f} MB before, {during:.0f} MB meanwhile; "
        f"pages of others {sorted(seconds)[10] * 1000:.0f} ms (median)"
    )
    assert during - before < 60
