"""Times are told in UTC, in whatever time zone the server lives."""

import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.fixtures import Person


@pytest.fixture
def kolkata(connection: Connection) -> Iterator[None]:
    """The database's time zone is not UTC, as on a machine that was set up without a thought of it."""
    from app.database.engines import dispose

    name = connection.scalar(text("SELECT quote_ident(current_database())"))
    connection.execute(text(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'"))
    dispose()  # Connections keep what was set when they were made.
    yield
    connection.execute(text(f"ALTER DATABASE {name} RESET timezone"))
    dispose()


@pytest.mark.usefixtures("kolkata")
def test_times_are_told_in_utc(client: TestClient, person: Person, make_post: Callable[..., int]) -> None:
    post_id = make_post(person)
    for path in ("/posts", f"/posts/{post_id}", "/users/me", "/sessions"):
        told = re.findall(r"_at\":\"([^\"]+)", client.get(path, headers=person.headers).text)
        assert told
        assert all(time.endswith("Z") for time in told), path
    written = client.post("/posts", headers=person.headers, json={"title": "title", "content": "content"})
    assert written.json()["created_at"].endswith("Z")
