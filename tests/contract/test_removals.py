"""`/posts/{id}/remove` and `/restore`: who sees what is removed, and what its author can do with it."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.services import recount
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

MakePost = Callable[..., int]
MakeComment = Callable[..., int]


def remove(client: TestClient, caller: Person, post_id: int, reason: str = "Spam") -> httpx2.Response:
    return client.post(f"/posts/{post_id}/remove", json={"reason": reason}, headers=caller.headers)


def restore(client: TestClient, caller: Person, post_id: int) -> httpx2.Response:
    return client.post(f"/posts/{post_id}/restore", headers=caller.headers)


LISTS = (
    "/posts", "/posts?sort=top", "/posts?sort=hot", "/posts?sort=old", "/posts?search=whale", "/posts?tag=sea",
    "/posts?owner_id={author}", "/posts?owner_id={author}&tag=sea", "/users/me/votes", "/users/me/bookmarks", "/home",
    "/tags", "/posts?sort=top&owner_id={author}",
)  # fmt: skip


def test_removed_post_is_absent_from_every_list_count_and_feed_until_it_is_restored(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost
) -> None:
    post_id = make_post(person, title="whale", tags=["sea"])
    for path in (f"/posts/{post_id}/vote", f"/posts/{post_id}/bookmark", f"/users/{person.id}/follow"):
        assert client.put(path, headers=other.headers).status_code == 200
    comment_id = client.post(f"/posts/{post_id}/comments", json={"content": "hello"}, headers=other.headers).json()[
        "id"
    ]
    lists = [path.format(author=person.id) for path in LISTS]
    profile = f"/users/{person.id}"
    before = {path: client.get(path, headers=other.headers) for path in lists}
    assert all(answer.json() for answer in before.values())

    response = remove(client, moderator, post_id)

    assert (response.status_code, response.json()) == (200, {"post_id": post_id, "removed": True, "reason": "Spam"})
    for path in lists:
        etag = {"If-None-Match": before[path].headers.get("ETag", '""')}
        answer = client.get(path, headers=other.headers | etag)
        assert (answer.status_code, answer.json()) == (200, []), path
    assert client.get(profile, headers=other.headers).json()["posts"] == 0
    assert_refused(client.get(f"/posts/{post_id}", headers=other.headers), 404, "post_not_found")
    assert_refused(client.get(f"/posts/{post_id}/comments", headers=other.headers), 404, "post_not_found")
    assert_refused(client.get(f"/comments/{comment_id}", headers=other.headers), 404, "comment_not_found")
    assert client.get(f"/users/{other.id}/comments", headers=other.headers).json() == []
    for method, path in (("PUT", f"/posts/{post_id}/vote"), ("DELETE", f"/posts/{post_id}/vote")):
        assert_refused(client.request(method, path, headers=other.headers), 404, "post_not_found")
    assert client.put(f"/comments/{comment_id}/vote", headers=person.headers).status_code == 404

    response = restore(client, moderator, post_id)

    assert (response.status_code, response.json()) == (200, {"post_id": post_id, "removed": False, "reason": None})
    for path in lists:
        assert client.get(path, headers=other.headers).json() == before[path].json(), path
    assert client.get(profile, headers=other.headers).json()["posts"] == 1


def test_author_and_moderators_see_a_removed_post_with_the_reason(
    client: TestClient, person: Person, moderator: Person, admin: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    before = client.get(f"/posts/{post_id}", headers=person.headers)
    assert before.json()["Post"]["removal_reason"] is None

    remove(client, moderator, post_id)

    for caller in (person, moderator, admin):
        answer = client.get(f"/posts/{post_id}", headers=caller.headers | {"If-None-Match": before.headers["ETag"]})
        assert answer.status_code == 200
        assert (answer.json()["Post"]["published"], answer.json()["Post"]["removal_reason"]) == (False, "Spam")
        (own,) = client.get(f"/posts?published=false&owner_id={person.id}", headers=caller.headers).json()
        assert own["Post"]["removal_reason"] == "Spam"
    body = {"name": "k", "scopes": ["read", "write"]}
    key = {"X-API-Key": client.post("/api-keys", json=body, headers=moderator.headers).json()["key"]}
    assert_refused(client.get(f"/posts/{post_id}", headers=key), 404, "post_not_found")
    assert_refused(client.post(f"/posts/{post_id}/restore", headers=key), 403, "insufficient_scope")


def test_author_can_change_and_delete_a_removed_post_but_not_publish_it(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows
) -> None:
    post_id = make_post(person, title="before")
    remove(client, moderator, post_id)
    path = f"/posts/{post_id}"

    assert_refused(client.patch(path, json={"published": True}, headers=person.headers), 403, "removed")
    put = client.put(path, json={"title": "t", "content": "c"}, headers=person.headers)
    assert_refused(put, 403, "removed")
    assert rows("SELECT title, published, removal_reason FROM posts") == [("before", False, "Spam")]
    changed = client.patch(path, json={"title": "after"}, headers=person.headers)
    assert (changed.status_code, changed.json()["removal_reason"]) == (200, "Spam")
    assert client.delete(path, headers=person.headers).status_code == 204
    assert rows("SELECT count(*) FROM posts") == [(0,)]
    assert_refused(restore(client, moderator, post_id), 404, "post_not_found")


@pytest.mark.parametrize("is_published", [True, False])
def test_restored_post_has_its_state_and_dates_of_before_and_notifies_only_its_author(
    client: TestClient, person: Person, make_person: Callable[..., Person], moderator: Person, rows: Rows,
    is_published: bool,
) -> None:  # fmt: skip
    make_person(username="ada")
    body = {"title": "Hello @ada", "content": "c", "published": is_published}
    post_id = client.post("/posts", json=body, headers=person.headers).json()["id"]
    state = "SELECT published, created_at, coalesce(first_published_at, created_at), updated_at FROM posts"
    before, mentions = rows(state), rows("SELECT count(*) FROM notifications WHERE kind = 'mention'")

    for reason in ("Spam", "More spam"):
        remove(client, moderator, post_id, reason)
    assert rows("SELECT removal_reason, published FROM posts") == [("More spam", False)]
    for _ in range(2):
        assert restore(client, moderator, post_id).status_code == 200

    assert rows(state) == before
    assert rows("SELECT count(*) FROM notifications WHERE kind = 'mention'") == mentions
    moderation = "SELECT user_id, actor_id, post_id FROM notifications WHERE kind = 'moderation'"
    assert rows(moderation) == [(person.id, None, post_id)]  # One, until it is read.
    log = "SELECT moderator_id, action, user_id, post_id, reason FROM moderation_log ORDER BY id"
    assert rows(log) == [
        (moderator.id, "remove", person.id, post_id, "Spam"), (moderator.id, "remove", person.id, post_id, "More spam"),
        (moderator.id, "restore", person.id, post_id, None),
    ]  # fmt: skip
    events = rows("SELECT kind FROM events WHERE kind LIKE 'post%' ORDER BY id")
    published, unpublished = ("post_published",), ("post_unpublished",)
    assert events == ([published, unpublished, published] if is_published else [])


def test_moderators_restore_nothing_of_their_own(
    client: TestClient, moderator: Person, admin: Person, make_post: MakePost, make_comment: MakeComment, rows: Rows
) -> None:
    for author, status in ((moderator, 403), (admin, 200)):
        post_id = make_post(author)
        comment_id = make_comment(author, post_id)
        for content in (f"/comments/{comment_id}", f"/posts/{post_id}"):
            removed = client.post(f"{content}/remove", json={"reason": "Spam"}, headers=admin.headers)
            assert removed.status_code == 200
            own = client.post(f"{content}/restore", headers=author.headers)
            assert own.status_code == status
            if status == 403:
                assert_refused(own, 403, "not_authorized")
                assert client.get(content, headers=admin.headers).text.count('"removal_reason":"Spam"') == 1
            assert client.post(f"{content}/restore", headers=admin.headers).status_code == 200
    assert rows("SELECT count(*) FROM posts WHERE removal_reason IS NOT NULL") == [(0,)]


def test_post_that_its_author_made_a_draft_while_it_was_removed_is_restored_as_one(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows
) -> None:
    post_id = make_post(person)
    remove(client, moderator, post_id)

    draft = client.patch(f"/posts/{post_id}", json={"published": False}, headers=person.headers)
    assert (draft.status_code, draft.json()["removal_reason"]) == (200, "Spam")
    restore(client, moderator, post_id)

    assert rows("SELECT published, removal_reason FROM posts") == [(False, None)]


def test_notification_of_a_removal_reaches_the_author_only_and_names_no_moderator(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost
) -> None:
    post_id, own_id = make_post(person), make_post(moderator)
    client.post(f"/posts/{post_id}/comments", json={"content": "hello"}, headers=other.headers)

    remove(client, moderator, post_id)
    remove(client, moderator, own_id)

    first, second = client.get("/notifications", headers=person.headers).json()
    assert (first["kind"], first["actor"], first["post_id"]) == ("moderation", None, post_id)
    assert second["kind"] == "comment"
    assert client.get("/notifications", headers=moderator.headers).json() == []


def test_what_moderators_delete_and_lock_is_logged(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows
) -> None:
    post_id, own_id = make_post(person), make_post(moderator)
    for action in ("lock", "lock", "unlock", "unlock"):
        client.post(f"/posts/{post_id}/{action}", headers=moderator.headers)
    for each in (post_id, own_id):
        assert client.delete(f"/posts/{each}", headers=moderator.headers).status_code == 204

    log = rows("SELECT action, moderator_id, user_id, post_id FROM moderation_log ORDER BY id")
    assert log == [(action, moderator.id, person.id, post_id) for action in ("lock", "unlock", "delete")]


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "a\0b", None])
def test_removal_needs_a_reason(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows, reason: str | None
) -> None:
    post_id = make_post(person)
    response = client.post(f"/posts/{post_id}/remove", json={"reason": reason}, headers=moderator.headers)
    assert_refused(response, 422, "validation_failed")
    assert rows("SELECT published FROM posts") == [(True,)]


def test_page_of_removed_posts_with_the_longest_reasons_stays_below_its_maximum(
    client: TestClient, connection: Connection, person: Person
) -> None:
    connection.execute(
        text("""
            INSERT INTO posts (owner_id, title, content, published, removal_reason, published_before_removal)
            SELECT :id, 't', repeat(chr(1), 1600), false, repeat(chr(1), 500), true FROM generate_series(1, 100)
        """),
        {"id": person.id},
    )
    response = client.get("/posts?published=false&limit=100", headers=person.headers)
    assert response.status_code == 200
    assert len(response.content) <= 1_000_000
    assert "next" in response.links


def remove_comment(client: TestClient, caller: Person, comment_id: int, reason: str = "Spam") -> httpx2.Response:
    return client.post(f"/comments/{comment_id}/remove", json={"reason": reason}, headers=caller.headers)


def restore_comment(client: TestClient, caller: Person, comment_id: int) -> httpx2.Response:
    return client.post(f"/comments/{comment_id}/restore", headers=caller.headers)


def thread(client: TestClient, caller: Person, post_id: int, query: str = "") -> list[dict[str, object]]:
    response = client.get(f"/posts/{post_id}/comments?depth=4{query}", headers=caller.headers)
    assert response.status_code == 200
    found: list[dict[str, object]] = response.json()
    return found


def comments_of(client: TestClient, caller: Person, post_id: int) -> int:
    return int(client.get(f"/posts/{post_id}", headers=caller.headers).json()["comments"])


@pytest.mark.parametrize("sort", ["top", "new", "old"])
def test_removed_comment_without_replies_is_gone_for_others_until_it_is_restored(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost,
    make_comment: MakeComment, sort: str,
) -> None:  # fmt: skip
    post_id = make_post(person)
    parent_id = make_comment(person, post_id)
    comment_id = make_comment(other, post_id, parent_id=parent_id)
    readers = {"others": person, "author": other, "moderator": moderator}
    threads = {name: thread(client, reader, post_id, f"&sort={sort}") for name, reader in readers.items()}

    response = remove_comment(client, moderator, comment_id)

    state = {"comment_id": comment_id, "removed": True, "reason": "Spam"}
    assert (response.status_code, response.json()) == (200, state)
    for name, reader in readers.items():
        (parent,) = thread(client, reader, post_id, f"&sort={sort}")
        shown = [(each["id"], each["content"], each["removal_reason"]) for each in parent["replies"]]  # type: ignore[attr-defined]
        assert shown == ([] if name == "others" else [(comment_id, "comment", "Spam")])
        assert parent["reply_count"] == len(shown)
        assert comments_of(client, reader, post_id) == 1
    assert thread(client, person, post_id, f"&sort={sort}&parent_id={parent_id}") == []
    for method, path, body in (
        ("GET", f"/comments/{comment_id}", None),
        ("PATCH", f"/comments/{comment_id}", {"content": "x"}),
        ("DELETE", f"/comments/{comment_id}", None),
        ("PUT", f"/comments/{comment_id}/vote", None),
        ("GET", f"/posts/{post_id}/comments?parent_id={comment_id}", None),
    ):
        response = client.request(method, path, json=body, headers=person.headers)
        assert_refused(response, 404, "comment_not_found")
    assert client.get(f"/users/{other.id}/comments", headers=person.headers).json() == []
    (own,) = client.get(f"/users/{other.id}/comments", headers=other.headers).json()
    assert (
        own["removal_reason"] == client.get(f"/comments/{comment_id}", headers=other.headers).json()["removal_reason"]
    )
    assert own["removal_reason"] == "Spam"

    for _ in range(2):
        response = restore_comment(client, moderator, comment_id)
        state = {"comment_id": comment_id, "removed": False, "reason": None}
        assert (response.status_code, response.json()) == (200, state)
    assert {name: thread(client, reader, post_id, f"&sort={sort}") for name, reader in readers.items()} == threads
    assert comments_of(client, person, post_id) == 2


def test_removed_comment_with_replies_is_a_tombstone_to_others_and_accepts_none(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost,
    make_comment: MakeComment, rows: Rows,
) -> None:  # fmt: skip
    post_id = make_post(person)
    comment_id = make_comment(other, post_id)
    reply_id = make_comment(person, post_id, parent_id=comment_id)

    remove_comment(client, moderator, comment_id)

    (shown,) = thread(client, person, post_id)
    single = client.get(f"/comments/{comment_id}", headers=person.headers).json()
    for each in (shown, single):
        assert (each["deleted"], each["author"], each["content"], each["removal_reason"]) == (True, None, "", None)
    assert [each["id"] for each in shown["replies"]] == [reply_id]  # type: ignore[attr-defined]
    assert comments_of(client, person, post_id) == 1
    for caller in (person, other, moderator):
        body = {"content": "x", "parent_id": comment_id}
        reply = client.post(f"/posts/{post_id}/comments", json=body, headers=caller.headers)
        assert_refused(reply, 404, "comment_not_found")
        assert_refused(client.put(f"/comments/{comment_id}/vote", headers=caller.headers), 404, "comment_not_found")
    changed = client.patch(f"/comments/{comment_id}", json={"content": "after"}, headers=other.headers)
    assert (changed.status_code, changed.json()["removal_reason"]) == (200, "Spam")
    assert client.delete(f"/comments/{comment_id}", headers=other.headers).status_code == 204
    assert rows("SELECT content, removal_reason, deleted_at IS NULL FROM comments WHERE id = :id", id=comment_id) == [
        ("", None, False)
    ]
    assert comments_of(client, person, post_id) == 1
    assert_refused(restore_comment(client, moderator, comment_id), 404, "comment_not_found")
    assert_refused(remove_comment(client, moderator, comment_id), 404, "comment_not_found")


def test_removed_comment_notifies_its_author_only_and_hides_its_other_notifications(
    client: TestClient, person: Person, make_person: Callable[..., Person], moderator: Person, make_post: MakePost,
    rows: Rows,
) -> None:  # fmt: skip
    author, ada, bob = make_person(), make_person(username="ada"), make_person(username="bob")
    post_id = make_post(person)
    body = {"content": "Hello @ada"}
    comment_id = client.post(f"/posts/{post_id}/comments", json=body, headers=author.headers).json()["id"]

    for reason in ("Spam", "More spam"):
        remove_comment(client, moderator, comment_id, reason)
    # What its author writes into it while it is removed notifies no user.
    client.patch(f"/comments/{comment_id}", json={"content": "Hello @ada @bob"}, headers=author.headers)

    (told,) = client.get("/notifications", headers=author.headers).json()
    assert (told["kind"], told["actor"], told["post_id"], told["comment_id"]) == (
        "moderation", None, post_id, comment_id,
    )  # fmt: skip
    for reader in (person, ada, bob):
        assert client.get("/notifications", headers=reader.headers).json() == []
    restore_comment(client, moderator, comment_id)
    assert [each["kind"] for each in client.get("/notifications", headers=person.headers).json()] == ["comment"]
    assert [each["kind"] for each in client.get("/notifications", headers=ada.headers).json()] == ["mention"]
    log = "SELECT action, user_id, post_id, comment_id, reason FROM moderation_log ORDER BY id"
    assert rows(log) == [
        ("remove", author.id, post_id, comment_id, "Spam"), ("remove", author.id, post_id, comment_id, "More spam"),
        ("restore", author.id, post_id, comment_id, None),
    ]  # fmt: skip


def test_counts_of_removed_comments_are_what_recount_computes(
    client: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    post_id = make_post(person)
    first = make_comment(other, post_id)
    make_comment(person, post_id, parent_id=first)
    second = make_comment(other, post_id)
    for each in (first, second):
        remove_comment(client, moderator, each)
    client.delete(f"/comments/{first}", headers=other.headers)

    assert [batch.wrong for batch in recount.recount(is_repairing=False) if batch.wrong] == []
    assert comments_of(client, person, post_id) == 1
