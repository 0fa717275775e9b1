"""`GET /users/me/security-events`: the caller's own events only, the newest first."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, linked

PATH = "/users/me/security-events"


@pytest.fixture
def events(connection: Connection, person: Person, other: Person) -> list[int]:
    """Return the ids of seven events of the person, newest first.

    Between them are as many events of another user.
    """
    for n in range(7):
        for owner in (person, other):
            connection.execute(
                text("INSERT INTO security_events (user_id, event, details) VALUES (:id, 'signed_in', :details)"),
                {"id": owner.id, "details": f'{{"n": {n}}}'},
            )
    statement = text("SELECT id FROM security_events WHERE user_id = :id ORDER BY id DESC")
    return [*connection.scalars(statement, {"id": person.id})]


def test_own_events_are_listed_newest_first(client: TestClient, person: Person, events: list[int]) -> None:
    response = client.get(PATH, headers=person.headers)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert [event["id"] for event in response.json()] == events
    assert [event["details"]["n"] for event in response.json()] == [6, 5, 4, 3, 2, 1, 0]
    assert set(response.json()[0]) == {
        "id", "event", "created_at", "address", "user_agent", "request_id", "details"
    }  # fmt: skip


def test_an_event_says_where_it_came_from(client: TestClient, person: Person) -> None:
    headers = person.headers | {"User-Agent": "Mosaic/1.0", "X-Request-ID": "abc-1"}
    wanted = {"email": "new@example.com", "current_password": PASSWORD}
    assert client.patch("/users/me", json=wanted, headers=headers).status_code == 200

    (event,) = (event for event in client.get(PATH, headers=person.headers).json() if event["event"] == "email_changed")

    assert (event["address"], event["user_agent"], event["request_id"]) == ("testclient", "Mosaic/1.0", "abc-1")


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
def test_a_walk_by_cursor_meets_each_event_once_during_changes(
    client: TestClient, person: Person, events: list[int], connection: Connection, limit: int
) -> None:
    met: list[int] = []
    following: str | None = f"{PATH}?limit={limit}"
    while following:
        response = client.get(following, headers=person.headers)
        met += [event["id"] for event in response.json()]
        following = linked(response)
        connection.execute(
            text("INSERT INTO security_events (user_id, event) VALUES (:id, 'signed_in')"), {"id": person.id}
        )

    assert met == events


def test_skip_passes_over_the_newest(client: TestClient, person: Person, events: list[int]) -> None:
    response = client.get(f"{PATH}?skip=2&limit=2", headers=person.headers)

    assert [event["id"] for event in response.json()] == events[2:4]


@pytest.mark.parametrize("query", ["limit=0", "skip=-1", "limit=x"])
def test_parameters_out_of_range_are_malformed(client: TestClient, person: Person, query: str) -> None:
    assert_refused(client.get(f"{PATH}?{query}", headers=person.headers), 422, "validation_failed")


def test_a_cursor_of_another_list_is_refused(client: TestClient, make_person: Callable[..., Person]) -> None:
    admin = make_person(role="admin")
    make_person()
    cursor = client.get("/users?limit=1", headers=admin.headers).links["next"]["url"].partition("cursor=")[2]

    assert_refused(client.get(f"{PATH}?cursor={cursor}", headers=admin.headers), 422, "malformed_cursor")
    assert_refused(client.get(f"{PATH}?cursor=x", headers=admin.headers), 422, "malformed_cursor")


def test_events_go_with_the_account(
    client: TestClient, person: Person, other: Person, events: list[int], rows: Rows
) -> None:
    assert events
    assert client.delete("/users/me", headers=person.headers).status_code == 204

    assert rows("SELECT DISTINCT user_id FROM security_events") == [(other.id,)]
