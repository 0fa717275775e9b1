"""The event log: an order in which no event is skipped, and one event for each cause."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.database import event_log
from app.models import EventKind
from tests.contract.test_notifications import comment
from tests.fixtures import Person, Server
from tests.races.waiting import wait_until_events_arrive

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]


def record(connection: Connection, post_id: int) -> None:
    event_log.record(connection, EventKind.POST_EDITED, actor_id=1, post_id=post_id)


def posts_of(events: Any) -> list[int]:
    return [event.post_id for event in events]


def read(connection: Connection, position: event_log.Position, limit: int = 10) -> Sequence[event_log.LoggedEvent]:
    wait_until_events_arrive(connection)
    return event_log.read_after(connection, position, limit)


@pytest.fixture
def position(connection: Connection) -> event_log.Position:
    """The end of the log."""
    return event_log.Position(
        connection.scalar(text("SELECT pg_current_xact_id()::text::bigint")) or 0, 2**63 - 1
    )  # fmt: skip


def test_event_of_a_transaction_that_commits_late_is_not_skipped(
    database: Engine, connection: Connection, position: event_log.Position
) -> None:
    with database.connect() as late, late.begin() as transaction:
        record(late, 1)
        with database.begin() as early:
            record(early, 2)
        assert event_log.read_after(connection, position, 10) == []

        transaction.commit()

    first, second = read(connection, position)
    assert posts_of([first, second]) == [1, 2]
    assert read(connection, first.position) == [second]
    assert read(connection, second.position) == []


def test_order_of_transactions_comes_before_that_of_ids(
    database: Engine, connection: Connection, position: event_log.Position
) -> None:
    with database.connect() as first, first.begin() as transaction:
        first.execute(text("SELECT pg_current_xact_id()"))
        with database.begin() as second:
            record(second, 2)
        record(first, 1)
        transaction.commit()

    assert posts_of(read(connection, position)) == [1, 2]


def test_transaction_that_is_rolled_back_holds_up_events_only_while_it_runs(
    database: Engine, connection: Connection, position: event_log.Position
) -> None:
    with database.connect() as failing, failing.begin() as transaction:
        record(failing, 1)
        with database.begin() as other:
            record(other, 2)
        transaction.rollback()

    assert posts_of(read(connection, position)) == [2]


def test_log_is_read_in_parts(database: Engine, connection: Connection, position: event_log.Position) -> None:
    for first in (1, 4):
        with database.begin() as writer:
            for post_id in range(first, first + 3):
                record(writer, post_id)

    met: list[int] = []
    while events := read(connection, position, 2):
        assert len(events) == 2
        met += posts_of(events)
        position = events[-1].position
    assert met == [*range(1, 7)]
    assert read(connection, event_log.START, 1) != []


def test_events_of_other_processes_are_read(
    start_server: Callable[..., Server],
    connection: Connection,
    make_person: MakePerson,
    make_post: MakePost,
    position: event_log.Position,
) -> None:
    import httpx2

    owner, author = make_person(), make_person()
    post_id = make_post(owner)
    server = start_server()
    answer = httpx2.post(
        f"{server.url}/posts/{post_id}/comments", json={"content": "text"}, headers=author.headers, timeout=20
    )
    assert answer.status_code == 201

    events = read(connection, position)

    comment_id = answer.json()["id"]
    assert [event[2:7] for event in events] == [
        ("comment", author.id, post_id, comment_id, None),
        ("notification", author.id, post_id, comment_id, owner.id),
    ]


LOGGED = text("SELECT kind, actor_id, post_id, comment_id, user_id FROM events ORDER BY transaction_id, id")


def test_each_cause_is_logged_in_its_transaction_and_votes_are_not(
    client: TestClient, connection: Connection, make_person: MakePerson
) -> None:
    person, other = make_person(username="ada"), make_person()
    new = {"title": "t", "content": "c"}

    def send(method: str, path: str, caller: Person, **body: object) -> Any:
        response = client.request(method, path, json=body or None, headers=caller.headers)
        assert response.is_success, response.text
        return response

    post_id = send("POST", "/posts", other, **new).json()["id"]
    path = f"/posts/{post_id}"
    send("PATCH", path, other, content="@ada")
    send("PATCH", path, other, content="@ada")
    send("PUT", f"{path}/vote", person)
    comment_id = comment(client, person, post_id)
    send("PUT", f"/comments/{comment_id}/vote", other)
    send("PUT", f"/users/{other.id}/follow", person)
    send("PATCH", path, other, published=False)
    send("PATCH", path, other, content="draft")
    send("PATCH", path, other, published=True)
    send("DELETE", path, other)
    draft = send("POST", "/posts", other, **new, published=False).json()["id"]
    send("DELETE", f"/posts/{draft}", other)

    assert [tuple(row) for row in connection.execute(LOGGED)] == [
        ("post_published", other.id, post_id, None, None),
        ("post_edited", other.id, post_id, None, None),
        ("notification", other.id, post_id, None, person.id),
        ("comment", person.id, post_id, comment_id, None),
        ("notification", person.id, post_id, comment_id, other.id),
        ("notification", person.id, None, None, other.id),
        ("post_unpublished", other.id, post_id, None, None),
        ("post_published", other.id, post_id, None, None),
        ("post_deleted", other.id, post_id, None, other.id),
    ]


def test_refused_writes_leave_no_event(
    client: TestClient, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    person, other = make_person(), make_person()
    draft, post_id = make_post(person, published=False), make_post(person)
    for method, path, body in (
        ("POST", f"/posts/{draft}/comments", {"content": "c"}),
        ("POST", f"/posts/{post_id}/comments", {"content": "c", "parent_id": 1}),
        ("PATCH", f"/posts/{post_id}", {"title": "t"}),
        ("DELETE", f"/posts/{post_id}", None),
        ("PUT", f"/users/{other.id}/follow", None),
    ):
        assert client.request(method, path, json=body, headers=other.headers).status_code in {403, 404, 422}
    assert connection.execute(LOGGED).all() == []


@pytest.mark.parametrize("has_many_rows", [False, True])
def test_deleted_account_logs_the_deletion_of_its_published_posts(
    client: TestClient, connection: Connection, person: Person, make_post: MakePost, *, has_many_rows: bool
) -> None:
    from app.services import deletion

    published, _ = make_post(person), make_post(person, published=False)
    if has_many_rows:
        comment(client, person, published)
        connection.execute(text("DELETE FROM events"))

    assert client.delete("/users/me", headers=person.headers).status_code == 204
    assert deletion.work() == has_many_rows

    assert [tuple(row) for row in connection.execute(LOGGED)] == [("post_deleted", None, published, None, person.id)]


def test_post_with_many_rows_is_logged_as_deleted_at_once_and_once(
    client: TestClient, connection: Connection, person: Person, make_post: MakePost
) -> None:
    from app.database import deletion_marks
    from app.services import deletion

    post_id = make_post(person)
    connection.execute(
        text("""
            INSERT INTO comments (post_id, owner_id, content) SELECT :post, :id, 'c' FROM generate_series(0, :n)
        """),
        {"post": post_id, "id": person.id, "n": deletion_marks.MAX_ROWS_AT_ONCE},
    )
    assert client.delete(f"/posts/{post_id}", headers=person.headers).status_code == 204
    expected = [("post_deleted", person.id, post_id, None, person.id)]
    assert [tuple(row) for row in connection.execute(LOGGED)] == expected
    assert deletion.work() == 1
    assert [tuple(row) for row in connection.execute(LOGGED)] == expected
