"""`/reports`: reporting, the queue of moderators, and resolving."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.services import deletion
from app.services.moderation.report import MAX_OPEN_REPORTS
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

MakePost = Callable[..., int]
MakeComment = Callable[..., int]


def report(client: TestClient, caller: Person, **body: object) -> httpx2.Response:
    return client.post("/reports", json={"reason": "Spam"} | body, headers=caller.headers)


def resolve(
    client: TestClient, caller: Person, report_id: int, action: str = "dismiss", **body: object
) -> httpx2.Response:
    return client.post(f"/reports/{report_id}/resolve", json={"action": action} | body, headers=caller.headers)


def queue(client: TestClient, caller: Person, query: str = "") -> list[dict[str, object]]:
    response = client.get(f"/reports{query}", headers=caller.headers)
    assert response.status_code == 200
    found: list[dict[str, object]] = response.json()
    return found


@pytest.fixture
def things(person: Person, make_post: MakePost, make_comment: MakeComment) -> dict[str, int]:
    """A post of the person, their comment on it, and their account, by the name in a report."""
    post_id = make_post(person)
    return {"post_id": post_id, "comment_id": make_comment(person, post_id), "user_id": person.id}


@pytest.mark.parametrize("name", ["post_id", "comment_id", "user_id"])
def test_report_reaches_moderators_once_while_it_is_open(
    client: TestClient, other: Person, moderator: Person, things: dict[str, int], rows: Rows, name: str
) -> None:
    thing = {name: things[name]}

    response = report(client, other, **thing)

    assert response.status_code == 201
    made = {"post_id": None, "comment_id": None, "user_id": None, "reason": "Spam"} | thing
    assert response.json().items() >= made.items()
    assert set(response.json()) == {*made, "id", "created_at"}
    assert_refused(report(client, other, **thing), 409, "already_reported")
    (shown,) = queue(client, moderator)
    assert shown["id"] == response.json()["id"]
    assert shown["reporter"] == {"id": other.id, "username": f"user{other.id}", "display_name": None, "avatar": None}
    assert (shown["resolved_at"], shown["resolver"], shown["action"], shown["note"]) == (None, None, None, None)
    assert rows("SELECT count(*) FROM reports") == [(1,)]
    # Another reporter, and the same one after it is resolved, may report it.
    assert report(client, moderator, **thing).status_code == 201
    assert resolve(client, moderator, response.json()["id"]).status_code == 200
    assert report(client, other, **thing).status_code == 201


def test_repeated_report_with_an_idempotency_key_is_one(
    client: TestClient, other: Person, things: dict[str, int], rows: Rows
) -> None:
    body, headers = {"post_id": things["post_id"], "reason": "Spam"}, other.headers | {"Idempotency-Key": "k"}
    first, second = (client.post("/reports", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code, first.json()) == (201, 201, second.json())
    assert rows("SELECT count(*) FROM reports") == [(1,)]


def test_what_the_reporter_cannot_see_is_404(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost,
    make_comment: MakeComment, rows: Rows,
) -> None:  # fmt: skip
    draft, post_id = make_post(person, published=False), make_post(person)
    removed = make_comment(person, post_id)
    assert client.post(f"/comments/{removed}/remove", json={"reason": "x"}, headers=moderator.headers).is_success
    on_draft = make_comment(person, draft)

    for number in (draft, 0, -1, 2**63, post_id + 1000):
        assert_refused(report(client, other, post_id=number), 404, "post_not_found")
    for number in (removed, on_draft, 0, 2**63):
        assert_refused(report(client, other, comment_id=number), 404, "comment_not_found")
    for number in (0, -5, 2**63, 10**6):
        assert_refused(report(client, other, user_id=number), 404, "user_not_found")
    assert rows("SELECT count(*) FROM reports") == [(0,)]


@pytest.mark.parametrize(
    "body",
    [{}, {"post_id": 1, "user_id": 1}, {"post_id": "x"}, {"post_id": 1, "reason": ""}, {"post_id": 1, "reason": "\n"},
     {"post_id": 1, "reason": "x" * 501}, {"post_id": 1, "reason": "\0"}, {"user_id": True}],
)  # fmt: skip
def test_report_of_nothing_or_two_things_or_without_a_reason_is_refused(
    client: TestClient, other: Person, rows: Rows, body: dict[str, object]
) -> None:
    assert_refused(report(client, other, **body), 422, "validation_failed")
    assert rows("SELECT count(*) FROM reports") == [(0,)]


def test_reporter_has_a_maximum_of_open_reports(
    client: TestClient, person: Person, other: Person, moderator: Person, connection: Connection
) -> None:
    connection.execute(
        text("""
            WITH written AS (
                INSERT INTO posts (owner_id, title, content) SELECT :owner, 't', 'c' FROM generate_series(1, :n)
                RETURNING id
            )
            INSERT INTO reports (reporter_id, post_id, reason) SELECT :reporter, id, 'Spam' FROM written
        """),
        {"owner": person.id, "reporter": other.id, "n": MAX_OPEN_REPORTS},
    )

    assert_refused(report(client, other, user_id=person.id), 409, "quota_exceeded")
    resolve(client, moderator, int(str(queue(client, moderator)[0]["id"])))
    assert report(client, other, user_id=person.id).status_code == 201


def test_dismissed_report_changes_nothing_but_the_queue_and_the_log(
    client: TestClient, other: Person, moderator: Person, things: dict[str, int], rows: Rows
) -> None:
    post_id = things["post_id"]
    report_id = report(client, other, post_id=post_id).json()["id"]

    response = resolve(client, moderator, report_id, note="It is fine")

    assert response.status_code == 200
    resolver = {"id": moderator.id, "username": f"user{moderator.id}", "display_name": None, "avatar": None}
    shown = {"id": report_id, "action": "dismiss", "note": "It is fine", "resolver": resolver}
    assert response.json().items() >= shown.items()
    assert response.json()["resolved_at"] is not None
    assert queue(client, moderator) == []
    assert queue(client, moderator, "?status=resolved") == [response.json()]
    assert rows("SELECT removal_reason FROM posts") == [(None,)]
    log = rows("SELECT action, post_id, report_id, reason FROM moderation_log")
    assert log == [("dismiss", post_id, report_id, "It is fine")]
    for action in ("dismiss", "remove", "ban"):
        response = resolve(client, moderator, report_id, action, note="x")
        assert_refused(response, 409, "already_resolved")
    assert rows("SELECT removal_reason FROM posts") == [(None,)]
    assert rows("SELECT count(*) FROM users WHERE ban_reason IS NOT NULL") == [(0,)]
    assert rows("SELECT count(*) FROM moderation_log") == [(1,)]


@pytest.mark.parametrize("name", ["post_id", "comment_id"])
def test_resolving_with_remove_removes_the_content_and_resolves_all_its_reports(
    client: TestClient, other: Person, make_person: Callable[..., Person], moderator: Person, things: dict[str, int],
    rows: Rows, name: str,
) -> None:  # fmt: skip
    reports = [report(client, each, **{name: things[name]}).json()["id"] for each in (other, make_person())]
    unrelated = report(client, other, user_id=things["user_id"]).json()["id"]

    response = resolve(client, moderator, reports[1], "remove", note="Spam here")

    assert (response.status_code, response.json()["action"]) == (200, "remove")
    table = "posts" if name == "post_id" else "comments"
    assert rows(f"SELECT removal_reason FROM {table}") == [("Spam here",)]
    assert [each["id"] for each in queue(client, moderator)] == [unrelated]
    log = rows("SELECT action, user_id, report_id, reason FROM moderation_log")
    assert log == [("remove", things["user_id"], reports[1], "Spam here")]
    assert rows("SELECT user_id, kind FROM notifications") == [(things["user_id"], "moderation")]
    shown = queue(client, moderator, "?status=resolved")
    assert {(each["id"], each["action"]) for each in shown} == {(each, "remove") for each in reports}


@pytest.mark.parametrize("name", ["post_id", "comment_id", "user_id"])
def test_resolving_with_ban_bans_the_author(
    client: TestClient, other: Person, moderator: Person, things: dict[str, int], rows: Rows, name: str
) -> None:
    report_id = report(client, other, **{name: things[name]}).json()["id"]

    response = resolve(client, moderator, report_id, "ban", note="Spam", until="2099-01-01T00:00:00Z")

    assert response.status_code == 200
    assert rows("SELECT id, banned_until = '2099-01-01Z' FROM users WHERE ban_reason = 'Spam'") == [
        (things["user_id"], True)
    ]
    assert rows("SELECT action, user_id, report_id FROM moderation_log") == [("ban", things["user_id"], report_id)]
    assert rows("SELECT removal_reason FROM posts") == [(None,)]


def test_what_cannot_be_done_leaves_the_report_open(
    client: TestClient, other: Person, moderator: Person, admin: Person, things: dict[str, int], make_post: MakePost,
    make_comment: MakeComment, rows: Rows,
) -> None:  # fmt: skip
    of_user = report(client, other, user_id=things["user_id"]).json()["id"]
    of_admin = report(client, other, post_id=make_post(admin)).json()["id"]
    gone = make_post(other)
    of_gone = report(client, admin, post_id=gone).json()["id"]
    gone_comment = make_comment(other, things["post_id"])
    of_gone_comment = report(client, admin, comment_id=gone_comment).json()["id"]
    for path in (f"/posts/{gone}", f"/comments/{gone_comment}"):
        assert client.delete(path, headers=other.headers).status_code == 204
    open_reports = queue(client, moderator)

    assert_refused(resolve(client, moderator, of_user, "remove", note="x"), 422, "not_removable")
    assert_refused(resolve(client, moderator, of_admin, "ban", note="x"), 403, "not_authorized")
    for action in ("remove", "ban"):
        assert_refused(resolve(client, moderator, of_gone, action, note="x"), 404, "post_not_found")
        assert_refused(resolve(client, moderator, of_gone_comment, action, note="x"), 404, "comment_not_found")
        assert_refused(resolve(client, moderator, of_user, action), 422, "validation_failed")
    for known_or_not in (of_user, of_gone + 1000):
        assert_refused(resolve(client, other, known_or_not), 403, "not_authorized")
    assert_refused(resolve(client, moderator, of_gone + 1000), 404, "report_not_found")
    assert queue(client, moderator) == open_reports
    assert rows("SELECT count(*) FROM moderation_log") == [(0,)]
    assert resolve(client, moderator, of_gone).status_code == 200


@pytest.mark.parametrize("name", ["post_id", "comment_id", "user_id"])
def test_moderators_dismiss_no_report_about_themselves(
    client: TestClient, other: Person, admin: Person, moderator: Person, make_post: MakePost, make_comment: MakeComment,
    rows: Rows, name: str,
) -> None:  # fmt: skip
    for accused in (moderator, admin):
        post_id = make_post(accused)
        thing = {"post_id": post_id, "comment_id": make_comment(accused, post_id), "user_id": accused.id}[name]
        report_id = report(client, other, **{name: thing}).json()["id"]
        if accused is moderator:
            assert_refused(resolve(client, accused, report_id), 403, "not_authorized")
            assert rows("SELECT resolved_at FROM reports") == [(None,)]
            assert rows("SELECT count(*) FROM moderation_log") == [(0,)]
        assert resolve(client, admin, report_id).status_code == 200  # Admins decide about themselves, too.


def test_lists_follow_their_cursors_and_are_for_moderators(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost
) -> None:
    ids = [report(client, other, post_id=make_post(person)).json()["id"] for _ in range(5)]

    def walk(path: str) -> list[int]:
        found = []
        while True:
            response = client.get(path, headers=moderator.headers)
            found += [each["id"] for each in response.json()]
            if "next" not in response.links:
                return found
            path = f"/reports{response.links['next']['url']}"

    assert walk("/reports?limit=2") == ids
    for each in ids[:4]:
        resolve(client, moderator, each)
    assert walk("/reports?limit=2") == ids[4:]
    assert walk("/reports?limit=2&status=resolved") == ids[3::-1]
    for path in ("/reports", "/moderation-log"):
        assert_refused(client.get(path, headers=other.headers), 403, "not_authorized")
    cursor = client.get("/reports?limit=1&status=resolved", headers=moderator.headers).links["next"]["url"]
    crossed = cursor.replace("status=resolved", "status=open")
    assert_refused(client.get(f"/reports{crossed}", headers=moderator.headers), 422, "malformed_cursor")


@pytest.mark.parametrize("report_count", [1, 1_001])
def test_reports_go_with_the_account_of_their_reporter(
    client: TestClient, person: Person, other: Person, moderator: Person, connection: Connection, rows: Rows,
    report_count: int,
) -> None:  # fmt: skip
    connection.execute(
        text("INSERT INTO reports (reporter_id, post_id, reason) SELECT :id, n, 'x' FROM generate_series(1, :n) AS n"),
        {"id": other.id, "n": report_count},
    )
    kept = report(client, person, user_id=other.id).json()["id"]

    assert client.delete("/users/me", headers=other.headers).status_code == 204
    assert [each["reporter"] for each in queue(client, moderator)[:1]] != [other.id]
    deletion.work()

    assert rows("SELECT id FROM reports") == [(kept,)]
    assert rows("SELECT count(*) FROM users WHERE id = :id", id=other.id) == [(0,)]
