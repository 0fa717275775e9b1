"""Times are in UTC, in any time zone of the server."""

import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.fixtures import Person


@pytest.fixture
def kolkata(connection: Connection) -> Iterator[None]:
    """Set another time zone than UTC in the database, as on a machine with default settings."""
    from app.database.engines import dispose

    name = connection.scalar(text("SELECT quote_ident(current_database())"))
    connection.execute(text(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'"))
    dispose()  # Connections keep what was set when they were made.
    yield
    connection.execute(text(f"ALTER DATABASE {name} RESET timezone"))
    dispose()


@pytest.mark.usefixtures("kolkata")
def test_times_are_in_utc(client: TestClient, person: Person, make_post: Callable[..., int]) -> None:
    post_id = make_post(person)
    for path in ("/posts", f"/posts/{post_id}", "/users/me", "/sessions"):
        times = re.findall(r"_at\":\"([^\"]+)", client.get(path, headers=person.headers).text)
        assert times
        assert all(time.endswith("Z") for time in times), path
    written = client.post("/posts", headers=person.headers, json={"title": "title", "content": "content"})
    assert written.json()["created_at"].endswith("Z")


@pytest.mark.parametrize(
    "time",
    [
        "2024-03-10T23:59:60Z", "2024-03-10T24:00:00Z", "2024-03-10T12:00:00+25:00", "2024-03-10T12:00:00+02",
        "2024-03-10T12", "2024-W10-7", "2024-03-10 noon", "٢٠٢٤-03-10",
    ],
)  # fmt: skip
def test_invalid_times_are_refused_with_an_example(client: TestClient, person: Person, time: str) -> None:
    refused = client.get("/posts", params={"created_after": time}, headers=person.headers)

    assert refused.status_code == 422
    assert refused.json()["detail"][0]["msg"] == "the time should look like 2024-03-10 or 2024-03-10T12:00:00Z"


@pytest.mark.parametrize(
    "time",
    [
        "2024-03-10", "2024-03-10T12:00:00Z", "2024-03-10t12:00:00z", "2024-03-10 12:00",
        "2024-03-10T12:00:00.123456789Z", "2024-03-10T12:00:00+0530", "2024-03-10T12:00:00-23:59",
        "2024-03-10T12:00:00 02:00",
    ],
)  # fmt: skip
def test_times_in_their_usual_forms_are_understood(client: TestClient, person: Person, time: str) -> None:
    assert client.get("/posts", params={"created_after": time}, headers=person.headers).status_code == 200
