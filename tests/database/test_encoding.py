"""Text is UTF-8 on the way to the database and in it, for any environment and database settings."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL, Connection, Engine, make_url, text

from tests.cli.test_commands import app
from tests.conftest import ROOT, administration
from tests.fixtures import Person, _server

EVERY_PLANE = "ä Ж 漢 👩🏽‍💻 \U0010ffff"


@contextmanager
def database_of_encoding(encoding: str) -> Iterator[URL]:
    server = make_url(os.environ["DATABASE_URL"])
    name = f"encoding_{os.getpid()}_{secrets.token_hex(3)}"
    with administration(server) as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
        )
        try:
            yield server.set(database=name)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def latin_by_default(database: Engine) -> Iterator[None]:
    """The database, too, has Latin-1 as the encoding of its clients."""
    name = database.url.database
    with database.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'"))
    yield
    with database.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} RESET client_encoding"))


@pytest.mark.usefixtures("latin_by_default")
def test_every_text_is_stored_and_found_with_any_requested_encoding(
    database: Engine, connection: Connection, make_person: Callable[..., Person], tmp_path: Path
) -> None:
    person = make_person()
    url = database.url.update_query_dict({"client_encoding": "latin1"}).render_as_string(hide_password=False)

    with (
        _server(tmp_path, {"DATABASE_URL": url, "PGCLIENTENCODING": "LATIN1"}) as server,
        httpx2.Client(base_url=server.url, headers=person.headers) as client,
    ):
        made = client.post("/posts", json={"title": EVERY_PLANE, "content": EVERY_PLANE})
        assert made.status_code == 201, made.text
        page = client.get("/posts", params={"search": "漢"})
        one = client.get(f"/posts/{made.json()['id']}")

    assert [item["Post"]["title"] for item in page.json()] == [EVERY_PLANE]
    assert one.json()["Post"]["content"] == EVERY_PLANE
    stored = connection.scalar(text("SELECT encode(convert_to(title, 'UTF8'), 'hex') FROM posts"))
    assert bytes.fromhex(str(stored)).decode() == EVERY_PLANE


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_in_one_line(encoding: str) -> None:
    with database_of_encoding(encoding) as url:
        address = url.render_as_string(hide_password=False)
        runs = {
            command: app(command, DATABASE_URL=address) for command in ("serve", "run", "worker", "doctor", "adopt")
        }
        runs["alembic"] = subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=os.environ | {"DATABASE_URL": address},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        with administration(url) as connection:
            tables = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))

    for command, run in runs.items():
        assert run.returncode == 1, (command, run.stdout, run.stderr)
        (line,) = run.stderr.splitlines()
        assert f"is {encoding}, not UTF8" in line, command
        assert "CREATE DATABASE" in line, command
    assert tables == 0
