"""`/notifications` and `/posts/{id}/mute`: who is notified of what, and what is shown of it."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.database.notification_delivery import MAX_MENTIONS
from app.database.notification_visibility import MAX_UNREAD
from app.services import notification
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.contract.test_blocks import block, unblock
from tests.contract.test_follows import follow, unfollow
from tests.fixtures import Person, linked

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
MAX_UNREAD_OF_ACTOR = 20
WRITTEN = "SELECT user_id, kind, actor_id, comment_id FROM notifications ORDER BY user_id, id"
NOTHING_UNREAD = {"reply": 0, "comment": 0, "mention": 0, "follow": 0, "moderation": 0}


def comment(client: TestClient, author: Person, post_id: int, content: str = "text", **body: Any) -> int:
    """Write a comment through the API and return its id."""
    response = client.post(f"/posts/{post_id}/comments", json={"content": content, **body}, headers=author.headers)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def listed(client: TestClient, reader: Person, query: str = "") -> list[dict[str, Any]]:
    response = client.get(f"/notifications{query}", headers=reader.headers)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def kinds(client: TestClient, reader: Person) -> list[str]:
    """The kinds of what the reader is shown, newest first."""
    return [item["kind"] for item in listed(client, reader)]


def unread(client: TestClient, reader: Person) -> dict[str, int]:
    """The reader's unread notifications by kind, without zeros."""
    response = client.get("/notifications/unread-count", headers=reader.headers)
    assert response.status_code == 200, response.text
    by_kind: dict[str, int] = response.json()["by_kind"]
    assert response.json()["unread"] == sum(by_kind.values())
    return {kind: number for kind, number in by_kind.items() if number}


def read(client: TestClient, reader: Person, up_to: int) -> httpx2.Response:
    return client.post("/notifications/read", json={"up_to": up_to}, headers=reader.headers)


def mute(client: TestClient, reader: Person, post_id: int, method: str = "PUT") -> httpx2.Response:
    return client.request(method, f"/posts/{post_id}/mute", headers=reader.headers)


@pytest.fixture
def ada(make_person: MakePerson) -> Person:
    """A user with a name."""
    return make_person(username="Ada.L")


@pytest.fixture
def post_id(make_post: MakePost, person: Person) -> int:
    """A post of `person`."""
    return make_post(person)


# Who is notified of what.


def test_comment_reply_and_mention_notify_the_authors_and_the_mentioned_user(
    client: TestClient, person: Person, other: Person, ada: Person, make_person: MakePerson, post_id: int
) -> None:
    parent = comment(client, other, post_id)
    author = make_person()
    reply = comment(client, author, post_id, "What do you say, @ada.l?", parent_id=parent)

    expected = {
        "kind": "reply", "post_id": post_id, "comment_id": reply, "read_at": None,
        "actor": {"id": author.id, "username": f"user{author.id}", "display_name": None, "avatar": None},
    }  # fmt: skip
    (of_parent,) = listed(client, other)
    assert {key: of_parent[key] for key in expected} == expected
    assert set(of_parent) == {*expected, "id", "created_at"}
    assert kinds(client, ada) == ["mention"]
    assert kinds(client, person) == ["comment", "comment"]
    assert listed(client, author) == []


@pytest.mark.parametrize(
    ("owns_post", "owns_parent", "kind"), [(True, True, "reply"), (True, False, "comment"), (False, True, "reply")]
)
def test_several_causes_in_one_comment_are_one_notification_of_the_strongest_kind(
    client: TestClient, person: Person, other: Person, ada: Person, make_post: MakePost, rows: Rows, owns_post: bool,
    owns_parent: bool, kind: str,
) -> None:  # fmt: skip
    post_id = make_post(ada if owns_post else other)
    parent = comment(client, ada if owns_parent else other, post_id)
    (before,) = rows("SELECT count(*) FROM notifications WHERE user_id = :id", id=ada.id)

    comment(client, person, post_id, "@ada.l @ADA.L", parent_id=parent)

    assert kinds(client, ada)[0] == kind
    assert rows("SELECT count(*) FROM notifications WHERE user_id = :id", id=ada.id) == [(before[0] + 1,)]


def test_nothing_notifies_its_own_author(
    client: TestClient, ada: Person, make_post: MakePost, rows: Rows, connection: Connection
) -> None:
    post_id = make_post(ada)
    parent = comment(client, ada, post_id)
    comment(client, ada, post_id, "@ada.l", parent_id=parent)
    client.post("/posts", json={"title": "@ada.l", "content": "@Ada.L"}, headers=ada.headers)
    assert rows(WRITTEN) == []
    assert connection.scalar(text("SELECT count(*) FROM events WHERE kind = 'notification'")) == 0


def test_only_the_first_ten_names_of_a_text_are_notified(
    client: TestClient, other: Person, make_person: MakePerson, post_id: int, rows: Rows
) -> None:
    people = [make_person(username=f"name{chr(97 + n)}") for n in range(MAX_MENTIONS + 1)]
    comment(client, other, post_id, " ".join(f"@name{chr(97 + n)}" for n in range(MAX_MENTIONS + 1)))

    mentioned = rows("SELECT user_id FROM notifications WHERE kind = 'mention' ORDER BY 1")
    assert mentioned == [(person.id,) for person in people[:MAX_MENTIONS]]


def test_post_notifies_the_mentioned_when_it_is_published_and_edits_only_the_newly_mentioned(
    client: TestClient, person: Person, ada: Person, make_person: MakePerson, rows: Rows
) -> None:
    bob, carl = make_person(username="bob"), make_person(username="carl")
    draft = {"title": "by @ada.l", "content": "text", "published": False}
    post_id = client.post("/posts", json=draft, headers=person.headers).json()["id"]
    path = f"/posts/{post_id}"
    client.patch(path, json={"content": "with @bob"}, headers=person.headers)
    assert rows(WRITTEN) == []

    client.patch(path, json={"published": True}, headers=person.headers)
    expected = [(user.id, "mention", person.id, None) for user in (ada, bob)]
    assert rows(WRITTEN) == expected
    (shown,) = listed(client, ada)
    assert (shown["post_id"], shown["comment_id"]) == (post_id, None)

    # As after 90 days: the notifications are gone, and the mentions are kept.
    rows("DELETE FROM notifications RETURNING id")
    client.put(path, json={"title": "by @ADA.L", "content": "with @bob and @carl"}, headers=person.headers)
    assert rows(WRITTEN) == [(carl.id, "mention", person.id, None)]
    client.patch(path, json={"content": "with @carl"}, headers=person.headers)
    client.patch(path, json={"title": "t"}, headers=person.headers)
    assert rows(WRITTEN) == [(carl.id, "mention", person.id, None)]


def test_post_that_is_published_again_notifies_no_second_time(
    client: TestClient, person: Person, ada: Person, rows: Rows
) -> None:
    new = {"title": "t", "content": "@ada.l"}
    post_id = client.post("/posts", json=new, headers=person.headers).json()["id"]
    for is_published in (False, True):
        client.patch(f"/posts/{post_id}", json={"published": is_published}, headers=person.headers)
    assert rows(WRITTEN) == [(ada.id, "mention", person.id, None)]


def test_change_of_a_comment_notifies_only_the_newly_mentioned(
    client: TestClient, person: Person, other: Person, ada: Person, make_person: MakePerson, post_id: int, rows: Rows
) -> None:
    bob = make_person(username="bob")
    comment_id = comment(client, other, post_id, "@ada.l")
    rows("DELETE FROM notifications RETURNING id")

    for content in ("@ada.l and @bob", "@bob", "text"):
        response = client.patch(f"/comments/{comment_id}", json={"content": content}, headers=other.headers)
        assert response.status_code == 200
    assert rows(WRITTEN) == [(bob.id, "mention", other.id, comment_id)]
    refused = client.patch(f"/comments/{comment_id}", json={"content": "@ada.l"}, headers=person.headers)
    assert_refused(refused, 403, "not_authorized")
    assert len(rows(WRITTEN)) == 1
    assert kinds(client, ada) == []


def test_follow_notifies_once_while_the_notification_exists(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    for _ in range(2):
        follow(client, person, other)
        unfollow(client, person, other)
    assert rows(WRITTEN) == [(other.id, "follow", person.id, None)]
    (shown,) = listed(client, other)
    assert (shown["kind"], shown["actor"]["id"], shown["post_id"]) == ("follow", person.id, None)
    read(client, other, shown["id"])
    follow(client, person, other)
    assert unread(client, other) == {}


@pytest.mark.parametrize("is_by_recipient", [True, False])
def test_block_in_either_direction_prevents_and_hides_notifications(
    client: TestClient, other: Person, ada: Person, make_post: MakePost, rows: Rows, *, is_by_recipient: bool
) -> None:
    blocker, blocked = (ada, other) if is_by_recipient else (other, ada)
    elsewhere = make_post(other)
    comment(client, other, elsewhere, "@ada.l")
    assert (kinds(client, ada), unread(client, ada)) == (["mention"], {"mention": 1})
    before = rows(WRITTEN)

    block(client, blocker, blocked)

    assert (kinds(client, ada), unread(client, ada)) == ([], {})
    comment(client, other, elsewhere, "@ada.l")
    client.post("/posts", json={"title": "t", "content": "@ada.l"}, headers=other.headers)
    assert rows(WRITTEN) == before
    unblock(client, blocker, blocked)
    assert (kinds(client, ada), unread(client, ada)) == (["mention"], {"mention": 1})


def test_inactive_accounts_get_no_notification(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int, connection: Connection, rows: Rows
) -> None:
    parent = comment(client, ada, post_id)
    rows("DELETE FROM notifications RETURNING id")
    connection.execute(text("UPDATE users SET is_active = false WHERE id <> :id"), {"id": other.id})

    comment(client, other, post_id, "@ada.l")
    comment(client, other, post_id, parent_id=parent)
    follow(client, other, person)

    assert rows(WRITTEN) == []


# What is shown.


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET is_active = false WHERE id = :actor",
        "UPDATE users SET is_deleted = true WHERE id = :actor",
        "UPDATE posts SET published = false",
        "UPDATE users SET is_deleted = true WHERE id = :owner",
        "UPDATE comments SET owner_id = NULL WHERE id = :comment",
        "DELETE FROM comments WHERE id = :comment",
        "DELETE FROM posts",
        "DELETE FROM users WHERE id = :owner",
    ],
)
def test_notifications_about_what_the_recipient_may_not_see_are_hidden(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int, connection: Connection, change: str
) -> None:
    parent = comment(client, ada, post_id)
    reply = comment(client, other, post_id, parent_id=parent)
    follow(client, person, ada)
    assert kinds(client, ada) == ["follow", "reply"]

    values = {"actor": other.id, "owner": person.id, "comment": reply}
    connection.execute(text(change), {name: value for name, value in values.items() if f":{name}" in change})

    left = ["follow"] * (":owner" not in change)
    assert kinds(client, ada) == left
    assert unread(client, ada) == dict.fromkeys(left, 1)
    assert [item["kind"] for item in listed(client, ada, "?unread=true")] == left


def test_owner_still_sees_notifications_of_a_post_that_became_a_draft(
    client: TestClient, person: Person, other: Person, post_id: int
) -> None:
    comment(client, other, post_id)
    client.patch(f"/posts/{post_id}", json={"published": False}, headers=person.headers)
    assert kinds(client, person) == ["comment"]


@pytest.mark.parametrize("has_reply", [False, True])
def test_deletion_of_a_comment_or_post_removes_its_notifications(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int, rows: Rows, *, has_reply: bool
) -> None:
    comment_id = comment(client, other, post_id, "@ada.l")
    kept = comment(client, ada, post_id, parent_id=comment_id) if has_reply else None
    follow(client, other, ada)

    assert client.delete(f"/comments/{comment_id}", headers=other.headers).status_code == 204
    assert rows("SELECT comment_id, kind FROM notifications WHERE kind <> 'follow' ORDER BY kind") == (
        [(kept, "comment"), (kept, "reply")] if has_reply else []
    )
    client.patch(f"/posts/{post_id}", json={"content": "@ada.l"}, headers=person.headers)
    assert client.delete(f"/posts/{post_id}", headers=person.headers).status_code == 204
    assert rows("SELECT kind FROM notifications") == [("follow",)]


def test_decision_of_a_moderator_is_shown_without_an_actor(
    client: TestClient, person: Person, post_id: int, connection: Connection
) -> None:
    connection.execute(
        text("INSERT INTO notifications (user_id, kind, post_id) VALUES (:id, 'moderation', :post)"),
        {"id": person.id, "post": post_id},
    )
    (shown,) = listed(client, person)
    assert (shown["kind"], shown["actor"], shown["post_id"]) == ("moderation", None, post_id)
    assert unread(client, person) == {"moderation": 1}


def test_list_is_walked_newest_first_and_filtered(
    client: TestClient, person: Person, other: Person, post_id: int
) -> None:
    written = [comment(client, other, post_id) for _ in range(5)]
    ids = [item["id"] for item in listed(client, person)]
    assert ids == sorted(ids, reverse=True)
    read(client, person, ids[3])

    for query, expected in (("", written[::-1]), ("&unread=true", written[:1:-1])):
        met, sizes, address = [], [], f"/notifications?limit=2{query}"
        while address:
            response = client.get(address, headers=person.headers)
            met += [item["comment_id"] for item in response.json()]
            sizes.append(len(response.json()))
            address = linked(response) or ""
        assert met == expected
        assert sizes == [2, 2, 1][-len(sizes) :]
    assert "Link" not in client.get("/notifications?limit=5", headers=person.headers).headers
    for query in ("?cursor=x", "?unread=maybe", "?limit=0"):
        assert client.get(f"/notifications{query}", headers=person.headers).status_code == 422


def test_walk_passes_more_hidden_notifications_than_a_page_reads(
    client: TestClient, person: Person, other: Person, post_id: int, connection: Connection
) -> None:
    shown = comment(client, other, post_id)
    connection.execute(
        text("""
            INSERT INTO notifications (user_id, kind, actor_id, post_id, comment_id)
            SELECT :id, 'comment', :actor, :post, -n FROM generate_series(1, :n) AS n
        """),
        {"id": person.id, "actor": other.id, "post": post_id, "n": 2 * notification.MAX_ROWS_READ + 1},
    )
    pages, address = [], "/notifications?unread=true"
    while address:
        response = client.get(address, headers=person.headers)
        pages.append([item["comment_id"] for item in response.json()])
        address = linked(response) or ""

    assert pages == [[], [], [shown]]


@pytest.mark.parametrize("time", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
def test_odd_times_are_listed(
    client: TestClient, person: Person, other: Person, post_id: int, connection: Connection, time: str
) -> None:
    comment(client, other, post_id)
    connection.execute(text("UPDATE notifications SET created_at = :time, read_at = :time"), {"time": time})
    assert len(listed(client, person)) == 1


# Reading.


def test_reading_marks_the_notification_and_older_ones_of_the_caller_only(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    parent = comment(client, other, post_id)
    comment(client, other, post_id)
    comment(client, person, post_id, parent_id=parent)
    follow(client, other, person)
    newest, second, first = (item["id"] for item in listed(client, person))
    assert unread(client, person) == {"comment": 2, "follow": 1}

    response = read(client, person, second)

    assert response.status_code == 200
    assert response.json() == {"unread": 1, "by_kind": NOTHING_UNREAD | {"follow": 1}}
    times = {item["id"]: item["read_at"] for item in listed(client, person)}
    assert times[newest] is None
    assert times[second] == times[first] is not None
    assert unread(client, other) == {"reply": 1}
    # Again, and with ids that no notification has.
    read_at = rows("SELECT id, read_at FROM notifications ORDER BY id")
    for up_to in (second, 0, -1, -(10**30)):
        assert read(client, person, up_to).json()["unread"] == 1
    assert rows("SELECT id, read_at FROM notifications ORDER BY id") == read_at
    assert read(client, person, 10**30).json() == {"unread": 0, "by_kind": NOTHING_UNREAD}
    assert unread(client, other) == {"reply": 1}


def test_more_than_a_request_marks_are_marked_by_the_next(
    client: TestClient, person: Person, other: Person, post_id: int, connection: Connection
) -> None:
    own = comment(client, other, post_id)
    connection.execute(
        text("""
            WITH made AS (
                INSERT INTO users (email, email_canonical, password_hash)
                SELECT 'x' || n, 'x' || n, '' FROM generate_series(1, :n) AS n RETURNING id
            )
            INSERT INTO notifications (user_id, kind, actor_id) SELECT :id, 'follow', id FROM made
        """),
        {"id": person.id, "n": MAX_UNREAD + 4},
    )
    assert unread(client, person) == {"follow": MAX_UNREAD}
    assert read(client, person, 2**62).json()["unread"] == 5
    assert [item["comment_id"] for item in listed(client, person, "?unread=true")] == [None] * 4 + [own]
    assert read(client, person, 2**62).json()["unread"] == 0


def test_reading_needs_an_integer(client: TestClient, person: Person) -> None:
    for body in ({}, {"up_to": "x"}, {"up_to": None}, {"up_to": True}, {"up_to": 1.5}):
        response = client.post("/notifications/read", json=body, headers=person.headers)
        assert response.status_code == 422


def test_api_key_reads_notifications_and_marks_them_with_the_scope_write(
    client: TestClient, person: Person, other: Person, post_id: int
) -> None:
    comment(client, other, post_id)

    def key(*scopes: str) -> dict[str, str]:
        body = {"name": "k", "scopes": scopes}
        return {"X-API-Key": client.post("/api-keys", json=body, headers=person.headers).json()["key"]}

    reading, writing = key("read"), key("read", "write")
    (shown,) = client.get("/notifications", headers=reading).json()
    body = {"up_to": shown["id"]}
    assert_refused(client.post("/notifications/read", json=body, headers=reading), 403, "insufficient_scope")
    assert client.get("/notifications/unread-count", headers=reading).json()["unread"] == 1
    assert client.post("/notifications/read", json=body, headers=writing).json()["unread"] == 0


# Limits.


def test_one_account_cannot_fill_another_ones_notifications(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int
) -> None:
    for _ in range(MAX_UNREAD_OF_ACTOR + 3):
        comment(client, other, post_id, "@ada.l")
    assert unread(client, ada) == {"mention": MAX_UNREAD_OF_ACTOR}
    comment(client, person, post_id, "@ada.l")
    assert unread(client, ada) == {"mention": MAX_UNREAD_OF_ACTOR + 1}

    read(client, ada, 2**62)
    comment(client, other, post_id, "@ada.l")

    assert unread(client, ada) == {"mention": 1}


def test_changes_of_one_text_notify_a_bounded_number_of_users(
    client: TestClient, make_person: MakePerson, person: Person, post_id: int, rows: Rows
) -> None:
    own = comment(client, person, post_id)
    for round_ in range(4):
        names = [f"named-{round_}-{number}" for number in range(MAX_MENTIONS)]
        for name in names:
            make_person(username=name)
        body = {"content": " ".join(f"@{name}" for name in names)}
        for path in (f"/posts/{post_id}", f"/comments/{own}"):
            assert client.patch(path, json=body, headers=person.headers).status_code == 200

    sent = "SELECT comment_id, count(*) FROM notifications GROUP BY 1 ORDER BY 1 NULLS FIRST"
    assert rows(sent) == [(None, 2 * MAX_MENTIONS), (own, 2 * MAX_MENTIONS)]


def test_repeated_comment_notifies_once(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int, rows: Rows
) -> None:
    for _ in range(2):
        response = client.post(
            f"/posts/{post_id}/comments", json={"content": "@ada.l"}, headers={"Idempotency-Key": "1"} | other.headers
        )
        assert response.status_code == 201
    assert [(row[0], row[1]) for row in rows(WRITTEN)] == [(person.id, "comment"), (ada.id, "mention")]


# Muting.


def test_muted_post_sends_no_notifications_until_it_is_unmuted(
    client: TestClient, person: Person, other: Person, ada: Person, post_id: int, rows: Rows
) -> None:
    parent = comment(client, ada, post_id)
    rows("DELETE FROM notifications RETURNING id")
    for _ in range(2):
        response = mute(client, ada, post_id)
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "muted": True})
        assert mute(client, ada, post_id, "GET").json() == response.json()
    assert mute(client, person, post_id, "GET").json() == {"post_id": post_id, "muted": False}
    mute(client, person, post_id)

    comment(client, other, post_id, "@ada.l")
    comment(client, other, post_id, parent_id=parent)
    client.patch(f"/posts/{post_id}", json={"content": "@ada.l"}, headers=person.headers)
    assert rows(WRITTEN) == []

    for _ in range(2):
        response = mute(client, ada, post_id, "DELETE")
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "muted": False})
        assert mute(client, ada, post_id, "GET").json() == response.json()
    reply = comment(client, other, post_id, parent_id=parent)
    assert rows(WRITTEN) == [(ada.id, "reply", other.id, reply)]
    assert rows("SELECT user_id, post_id FROM post_mutes") == [(person.id, post_id)]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_posts_that_the_caller_cannot_see_cannot_be_muted(
    client: TestClient, person: Person, other: Person, make_post: MakePost, connection: Connection, method: str
) -> None:
    of_deleted = make_post(other)
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": other.id})
    for post_id in (make_post(person, published=False), of_deleted, 0, -1, 2**63):
        assert_refused(mute(client, person, post_id, method), 404, "post_not_found")


def test_mute_past_the_maximum_is_refused_until_another_ends(
    client: TestClient, person: Person, make_post: MakePost, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "MAX_MUTED_POSTS", 2)
    first, second, third = (make_post(person) for _ in range(3))
    for post_id in (first, second, second):
        assert mute(client, person, post_id).status_code == 200

    detail = "Your account has the maximum of 2 muted posts; delete one first"
    assert_refused(mute(client, person, third), 409, "quota_exceeded", detail)

    assert len(rows("SELECT post_id FROM post_mutes")) == 2
    mute(client, person, first, "DELETE")
    assert mute(client, person, third).status_code == 200
