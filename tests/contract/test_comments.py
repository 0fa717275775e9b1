"""Comments: write, read in threads, change, delete, vote."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.schemas.comment import ThreadComment
from app.services import comment, deletion
from app.services.comment.rows import MAX_PAGE_BYTES
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person, linked, located

MakePost = Callable[..., int]
MakeComment = Callable[..., int]
COMMENT = {
    "id", "post_id", "parent_id", "depth", "content", "author", "created_at", "updated_at", "deleted", "votes", "voted",
    "reply_count", "removal_reason",
}  # fmt: skip
WITHOUT_REPLIES = {"votes": 0, "voted": False, "reply_count": 0, "deleted": False}


@pytest.fixture
def post_id(make_post: MakePost, person: Person) -> int:
    return make_post(person)


def thread(client: TestClient, reader: Person, post_id: int, **parameters: Any) -> list[dict[str, Any]]:
    response = client.get(f"/posts/{post_id}/comments", params=parameters, headers=reader.headers)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def ids(comments: list[dict[str, Any]]) -> list[Any]:
    """The ids of a thread: an id alone, or a pair of it and its replies."""
    return [(each["id"], ids(each["replies"])) if each["replies"] else each["id"] for each in comments]


def comment_count(client: TestClient, reader: Person, post_id: int) -> int:
    """Return the count that the post has on its own and in a list, which must be equal."""
    alone = client.get(f"/posts/{post_id}", headers=reader.headers).json()["comments"]
    (listed,) = [
        item["comments"]
        for item in client.get("/posts", headers=reader.headers).json()
        if item["Post"]["id"] == post_id
    ]
    assert alone == listed
    return int(alone)


# Writing.


def test_comments_and_replies_are_written_and_counted(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    path = f"/posts/{post_id}/comments"
    first = client.post(path, json={"content": "What about Clearwater?"}, headers=other.headers)
    assert first.status_code == 201
    body = first.json()
    assert set(body) == COMMENT
    assert body | WITHOUT_REPLIES == body
    assert (body["post_id"], body["parent_id"], body["depth"]) == (post_id, None, 0)
    assert (body["content"], body["author"]["id"]) == ("What about Clearwater?", other.id)
    assert located(first) == f"/comments/{body['id']}"
    assert first.headers["ETag"] == '"1"'

    reply = client.post(path, json={"content": "Closed.", "parent_id": body["id"]}, headers=person.headers).json()
    assert (reply["parent_id"], reply["depth"]) == (body["id"], 1)

    assert rows("SELECT post_id, parent_id, owner_id, content, depth FROM comments ORDER BY id") == [
        (post_id, None, other.id, "What about Clearwater?", 0),
        (post_id, body["id"], person.id, "Closed.", 1),
    ]
    assert rows("SELECT comment_id, parent_key, votes, replies FROM comment_stats ORDER BY comment_id") == [
        (body["id"], 0, 0, 1),
        (reply["id"], body["id"], 0, 0),
    ]
    assert comment_count(client, person, post_id) == 2


def test_the_real_address_of_an_author_is_shown_to_the_author_only(
    client: TestClient, person: Person, other: Person, post_id: int
) -> None:
    path = f"/posts/{post_id}/comments"
    written = client.post(path, json={"content": "mine"}, headers=other.headers).json()
    assert written["author"]["email"] == other.email

    addresses = {
        reader.id: [
            thread(client, reader, post_id)[0]["author"]["email"],
            client.get(f"/comments/{written['id']}", headers=reader.headers).json()["author"]["email"],
            client.get(f"/users/{other.id}/comments", headers=reader.headers).json()[0]["author"]["email"],
        ]
        for reader in (person, other)
    }

    assert addresses == {other.id: [other.email] * 3, person.id: [f"user{other.id}@users.noreply.example.com"] * 3}


@pytest.mark.parametrize(
    "content", ["", " \t\n", "\u200b", "x" * 10_001, "a\0b", 7, None], ids=lambda content: repr(content)[:10]
)
def test_unfit_content_is_refused(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment, rows: Rows, content: object
) -> None:
    own = make_comment(person, post_id, content="before")
    for method, path in (("POST", f"/posts/{post_id}/comments"), ("PATCH", f"/comments/{own}")):
        response = client.request(method, path, json={"content": content}, headers=person.headers)
        assert response.status_code == 422, response.text
    assert rows("SELECT content FROM comments") == [("before",)]


def test_a_comment_needs_a_published_post_that_exists(
    client: TestClient, person: Person, other: Person, make_post: MakePost, rows: Rows
) -> None:
    draft = make_post(person, published=False)
    for caller, post_id in ((person, draft), (other, draft), (person, draft + 1), (person, 0), (person, 10**30)):
        response = client.post(f"/posts/{post_id}/comments", json={"content": "x"}, headers=caller.headers)
        assert_refused(response, 404, "post_not_found")
    assert rows("SELECT 1 FROM comments") == []


def test_a_parent_must_be_a_comment_of_the_same_post(
    client: TestClient, person: Person, post_id: int, make_post: MakePost, make_comment: MakeComment, rows: Rows
) -> None:
    elsewhere = make_comment(person, make_post(person))
    tombstone = make_comment(person, post_id)
    make_comment(person, post_id, parent_id=tombstone)
    assert client.delete(f"/comments/{tombstone}", headers=person.headers).status_code == 204
    before = rows("SELECT count(*) FROM comments")

    for parent_id in (elsewhere, tombstone, 10**6, 0, -1, 10**30):
        body = {"content": "x", "parent_id": parent_id}
        response = client.post(f"/posts/{post_id}/comments", json=body, headers=person.headers)
        assert_refused(response, 404, "comment_not_found")
        if parent_id != tombstone:
            path = f"/posts/{post_id}/comments?parent_id={parent_id}"
            assert_refused(client.get(path, headers=person.headers), 404, "comment_not_found")
    assert rows("SELECT count(*) FROM comments") == before


def test_replies_are_at_most_32_deep(client: TestClient, person: Person, post_id: int, rows: Rows) -> None:
    parent_id = None
    for depth in range(33):
        body = {"content": "x", "parent_id": parent_id}
        response = client.post(f"/posts/{post_id}/comments", json=body, headers=person.headers)
        assert (response.status_code, response.json()["depth"]) == (201, depth)
        parent_id = response.json()["id"]

    deeper = client.post(
        f"/posts/{post_id}/comments", json={"content": "x", "parent_id": parent_id}, headers=person.headers
    )

    assert_refused(deeper, 422, "replies_too_deep")
    assert rows("SELECT count(*), max(depth) FROM comments") == [(33, 32)]


def test_a_repeated_key_writes_one_comment_and_counts_for_its_post_only(
    client: TestClient, person: Person, post_id: int, make_post: MakePost, rows: Rows
) -> None:
    headers = person.headers | {"Idempotency-Key": "one"}
    first = client.post(f"/posts/{post_id}/comments", json={"content": "x"}, headers=headers)
    again = client.post(f"/posts/{post_id}/comments", json={"content": "x"}, headers=headers)
    elsewhere = client.post(f"/posts/{make_post(person)}/comments", json={"content": "x"}, headers=headers)

    assert (first.status_code, again.status_code, first.content) == (201, 201, again.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert_refused(elsewhere, 422, "idempotency_mismatch")
    assert rows("SELECT count(*) FROM comments") == [(1,)]


# Threads.


def test_each_sort_is_a_total_order_at_every_level(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment, make_person: Callable[..., Person]
) -> None:
    first, second, third = (make_comment(person, post_id) for _ in range(3))
    below = [make_comment(person, post_id, parent_id=second) for _ in range(3)]
    for voter in (person, make_person()):
        client.put(f"/comments/{second}/vote", headers=voter.headers)
    client.put(f"/comments/{below[1]}/vote", headers=person.headers)

    assert ids(thread(client, person, post_id)) == [(second, [below[1], below[2], below[0]]), third, first]
    assert ids(thread(client, person, post_id, sort="new")) == [third, (second, below[::-1]), first]
    assert ids(thread(client, person, post_id, sort="old")) == [first, (second, below), third]
    assert ids(thread(client, person, post_id, sort="old", parent_id=second)) == below


def test_a_thread_is_serialized_as_its_schema(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment, connection: Connection
) -> None:
    parent = make_comment(person, post_id, content='quotes " and \\ and </script>')
    make_comment(other, post_id, parent_id=parent, content="\x01\b\n\t\x7f\u2028 é 漢字 😀")
    make_comment(other, post_id, content="-infinity")
    connection.execute(text("UPDATE comments SET created_at = '-infinity' WHERE content = '-infinity'"))
    schema = TypeAdapter(list[ThreadComment])

    body = client.get(f"/posts/{post_id}/comments", headers=person.headers).content

    assert schema.dump_json(schema.validate_json(body)) == body


def test_replies_go_to_the_requested_depth(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment
) -> None:
    path: list[int] = []
    for _ in range(6):
        path.append(make_comment(person, post_id, parent_id=path[-1] if path else None))

    def chain(length: int) -> list[Any]:
        shown: list[Any] = [path[length]]
        for each in path[:length][::-1]:
            shown = [(each, shown)]
        return shown

    for sort in ("top", "new", "old"):
        assert [ids(thread(client, person, post_id, sort=sort, depth=depth)) for depth in range(5)] == [
            chain(depth) for depth in range(5)
        ]
    assert ids(thread(client, person, post_id)) == chain(2)
    below = thread(client, person, post_id, parent_id=path[2], depth=4)
    assert ids(below) == [(path[3], [(path[4], [path[5]])])]
    for depth in (-1, 5):
        response = client.get(f"/posts/{post_id}/comments", params={"depth": depth}, headers=person.headers)
        assert response.status_code == 422


def test_at_most_five_replies_are_included_and_the_rest_is_found_by_parent(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment
) -> None:
    parent = make_comment(person, post_id)
    replies = [make_comment(person, post_id, parent_id=parent) for _ in range(7)]

    (shown,) = thread(client, person, post_id, sort="old")

    assert (ids(shown["replies"]), shown["reply_count"]) == (replies[:5], 7)
    assert ids(thread(client, person, post_id, sort="old", parent_id=parent)) == replies


@pytest.mark.parametrize("sort", ["top", "new", "old"])
@pytest.mark.parametrize("below_a_comment", [False, True])
def test_walk_through_links_meets_each_comment_once_in_order(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment, sort: str, below_a_comment: bool
) -> None:
    parent_id = make_comment(person, post_id) if below_a_comment else None
    comments = [make_comment(person, post_id, parent_id=parent_id) for _ in range(7)]
    for each in comments[::3]:
        client.put(f"/comments/{each}/vote", headers=person.headers)
    make_comment(person, post_id, parent_id=comments[0])
    parameters: dict[str, Any] = {"sort": sort, "limit": 3} | ({"parent_id": parent_id} if parent_id else {})
    whole = ids(thread(client, person, post_id, **parameters | {"limit": 100}))
    assert len(whole) == 7

    met, sizes = [], []
    response = client.get(f"/posts/{post_id}/comments", params=parameters, headers=person.headers)
    while True:
        met += ids(response.json())
        sizes.append(len(response.json()))
        if (following := linked(response)) is None:
            break
        response = client.get(following, headers=person.headers)

    assert met == whole
    assert sizes == [3, 3, 1]


def test_a_cursor_is_refused_by_every_list_but_its_own(
    client: TestClient, person: Person, post_id: int, make_post: MakePost, make_comment: MakeComment
) -> None:
    other_post = make_post(person)
    first, _ = (make_comment(person, post_id) for _ in range(2))
    for _ in range(2):
        make_comment(person, post_id, parent_id=first)
        make_comment(person, other_post)
    paths = [
        f"/posts/{post_id}/comments?sort=top",
        f"/posts/{post_id}/comments?sort=new",
        f"/posts/{post_id}/comments?sort=new&parent_id={first}",
        f"/posts/{other_post}/comments?sort=new",
        f"/users/{person.id}/comments?",
    ]
    cursors = [
        client.get(f"{path}&limit=1", headers=person.headers).links["next"]["url"].partition("cursor=")[2]
        for path in paths
    ]
    for number, path in enumerate(paths):
        for made_for, cursor in enumerate(cursors):
            response = client.get(f"{path}&cursor={cursor}", headers=person.headers)
            if number == made_for:
                assert response.status_code == 200
            else:
                assert_refused(response, 422, "malformed_cursor")


def test_a_thread_of_a_draft_is_seen_by_its_owner_and_moderators_only(
    client: TestClient, person: Person, other: Person, moderator: Person, post_id: int, make_comment: MakeComment
) -> None:
    own = make_comment(other, post_id)
    assert client.patch(f"/posts/{post_id}", json={"published": False}, headers=person.headers).status_code == 200

    for reader, status in ((person, 200), (moderator, 200), (other, 404)):
        assert client.get(f"/posts/{post_id}/comments", headers=reader.headers).status_code == status
        assert client.get(f"/comments/{own}", headers=reader.headers).status_code == status
        listed = client.get(f"/users/{other.id}/comments", headers=reader.headers)
        assert [each["id"] for each in listed.json()] == ([own] if status == 200 else [])
    for reader in (person, moderator, other):
        assert client.put(f"/comments/{own}/vote", headers=reader.headers).status_code == 404
    assert client.patch(f"/comments/{own}", json={"content": "x"}, headers=other.headers).status_code == 404
    assert client.delete(f"/comments/{own}", headers=other.headers).status_code == 404
    assert client.delete(f"/comments/{own}", headers=moderator.headers).status_code == 204


def test_a_thread_larger_than_a_page_is_cut_breadth_first_and_read_on(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment
) -> None:
    # As JSON, one has 60,000 bytes: 16 fit.
    long = "\x01" * 10_000
    comments = [make_comment(person, post_id, content=long) for _ in range(12)]
    replies = [make_comment(person, post_id, content=long, parent_id=comments[0]) for _ in range(5)]
    deeper = make_comment(person, post_id, content="short", parent_id=replies[0])
    path = f"/posts/{post_id}/comments"

    response = client.get(path, params={"sort": "old", "limit": 100}, headers=person.headers)
    assert len(response.content) <= MAX_PAGE_BYTES
    assert ids(response.json()) == [(comments[0], replies[:4]), *comments[1:]]
    assert response.json()[0]["reply_count"] == 5
    assert "Link" not in response.headers
    assert ids(thread(client, person, post_id, parent_id=replies[0])) == [deeper]

    for _ in range(8):
        make_comment(person, post_id, content=long)
    first = client.get(path, params={"sort": "old", "limit": 100}, headers=person.headers)
    assert len(first.content) <= MAX_PAGE_BYTES
    assert (len(first.json()), ids(first.json())[:2]) == (16, comments[:2])
    rest = client.get(linked(first) or "", headers=person.headers)
    assert len(rest.json()) == 4
    assert "Link" not in rest.headers


def test_a_thread_expands_a_bounded_number_of_comments(
    client: TestClient, person: Person, post_id: int, connection: Connection
) -> None:
    connection.execute(
        text("""
            WITH first AS (
                INSERT INTO comments (post_id, owner_id, content) SELECT :post, :owner, 'x' FROM generate_series(1, 100)
                RETURNING id
            ), second AS (
                INSERT INTO comments (post_id, owner_id, content, parent_id, depth)
                SELECT :post, :owner, 'x', id, 1 FROM first, generate_series(1, 6) RETURNING id
            )
            INSERT INTO comments (post_id, owner_id, content, parent_id, depth)
            SELECT :post, :owner, 'x', id, 2 FROM second
        """),
        {"post": post_id, "owner": person.id},
    )

    shown = thread(client, person, post_id, limit=100, sort="old")

    assert [len(each["replies"]) for each in shown] == [5] * 100
    expanded = [reply for each in shown for reply in each["replies"] if reply["replies"]]
    assert len(expanded) == 100
    assert all(reply["reply_count"] == 1 for each in shown for reply in each["replies"])


# One comment.


def test_a_comment_that_has_not_changed_is_not_sent_again(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment
) -> None:
    own = make_comment(person, post_id)
    for path in (f"/comments/{own}", f"/posts/{post_id}/comments", f"/users/{person.id}/comments"):
        read = client.get(path, headers=person.headers)
        again = client.get(path, headers=person.headers | {"If-None-Match": read.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")

        assert client.put(f"/comments/{own}/vote", headers=other.headers).status_code == 200
        voted = client.get(path, headers=person.headers | {"If-None-Match": read.headers["ETag"]})
        assert voted.status_code == 200
        assert client.delete(f"/comments/{own}/vote", headers=other.headers).status_code == 200


def test_a_change_needs_the_version_that_was_read(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    own = make_comment(person, post_id, content="one")
    read = client.get(f"/comments/{own}", headers=person.headers).headers["ETag"]

    changed = client.patch(f"/comments/{own}", json={"content": "two"}, headers=person.headers | {"If-Match": read})
    assert (changed.status_code, changed.json()["content"], changed.headers["ETag"]) == (200, "two", '"2"')
    assert changed.json()["updated_at"] > changed.json()["created_at"]
    stale = client.patch(f"/comments/{own}", json={"content": "no"}, headers=person.headers | {"If-Match": read})
    assert_refused(stale, 412, "precondition_failed")
    assert_refused(
        client.delete(f"/comments/{own}", headers=person.headers | {"If-Match": read}), 412, "precondition_failed"
    )
    same = client.patch(f"/comments/{own}", json={"content": "two"}, headers=person.headers)
    assert same.json() == changed.json()
    assert rows("SELECT content, version FROM comments") == [("two", 2)]
    assert client.delete(f"/comments/{own}", headers=person.headers | {"If-Match": '"2"'}).status_code == 204


def test_only_the_author_changes_a_comment_and_moderators_may_delete_it(
    client: TestClient, person: Person, other: Person, moderator: Person, post_id: int, make_comment: MakeComment
) -> None:
    theirs = make_comment(other, post_id)
    for caller in (person, moderator):
        response = client.patch(f"/comments/{theirs}", json={"content": "x"}, headers=caller.headers)
        assert_refused(response, 403, "not_authorized")
    assert_refused(client.delete(f"/comments/{theirs}", headers=person.headers), 403, "not_authorized")
    assert client.delete(f"/comments/{theirs}", headers=moderator.headers).status_code == 204
    assert_refused(client.get(f"/comments/{theirs}", headers=other.headers), 404, "comment_not_found")


# Deleting.


def test_a_comment_without_replies_is_gone_and_one_with_replies_is_a_tombstone(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    parent = make_comment(other, post_id)
    reply = make_comment(person, post_id, parent_id=parent)
    assert client.put(f"/comments/{parent}/vote", headers=person.headers).status_code == 200

    assert client.delete(f"/comments/{parent}", headers=other.headers).status_code == 204

    (shown,) = thread(client, person, post_id)
    assert (shown["deleted"], shown["author"], shown["content"]) == (True, None, "")
    assert (shown["votes"], shown["reply_count"], ids(shown["replies"])) == (1, 1, [reply])
    assert client.get(f"/comments/{parent}", headers=person.headers).json()["deleted"] is True
    assert rows("SELECT owner_id, content FROM comments WHERE deleted_at IS NOT NULL") == [(None, "")]
    assert comment_count(client, person, post_id) == 1
    assert client.get(f"/users/{other.id}/comments", headers=person.headers).json() == []
    for method, path, body in (
        ("PATCH", f"/comments/{parent}", {"content": "x"}),
        ("DELETE", f"/comments/{parent}", None),
        ("PUT", f"/comments/{parent}/vote", None),
        ("DELETE", f"/comments/{parent}/vote", None),
    ):
        response = client.request(method, path, json=body, headers=other.headers)
        assert_refused(response, 404, "comment_not_found")

    assert client.delete(f"/comments/{reply}", headers=person.headers).status_code == 204
    assert (
        rows("SELECT 1 FROM comments UNION ALL SELECT 1 FROM comment_stats UNION ALL SELECT 1 FROM comment_votes") == []
    )
    assert comment_count(client, person, post_id) == 0


def test_tombstones_go_up_to_the_first_that_has_another_reply(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    top = make_comment(person, post_id)
    kept = make_comment(person, post_id, parent_id=top)
    middle = make_comment(person, post_id, parent_id=top)
    low = make_comment(person, post_id, parent_id=middle)
    leaf = make_comment(person, post_id, parent_id=low)
    for each in (top, low, middle):
        assert client.delete(f"/comments/{each}", headers=person.headers).status_code == 204
    assert rows("SELECT id FROM comments WHERE deleted_at IS NOT NULL ORDER BY id") == [(top,), (middle,), (low,)]

    assert client.delete(f"/comments/{leaf}", headers=person.headers).status_code == 204

    assert ids(thread(client, person, post_id)) == [(top, [kept])]
    assert rows("SELECT comment_id, replies FROM comment_stats ORDER BY 1") == [(top, 1), (kept, 0)]


def test_deleting_a_post_deletes_its_comments(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    parent = make_comment(other, post_id)
    reply = make_comment(person, post_id, parent_id=parent)
    assert client.put(f"/comments/{reply}/vote", headers=other.headers).status_code == 200

    assert client.delete(f"/posts/{post_id}", headers=person.headers).status_code == 204

    assert_refused(client.get(f"/comments/{reply}", headers=other.headers), 404, "comment_not_found")
    assert_refused(client.get(f"/posts/{post_id}/comments", headers=other.headers), 404, "post_not_found")
    assert (
        rows("SELECT 1 FROM comments UNION ALL SELECT 1 FROM comment_stats UNION ALL SELECT 1 FROM comment_votes") == []
    )


def test_comments_of_a_deleted_account_are_tombstones_at_once_and_removed_afterwards(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    parent = make_comment(other, post_id, content="secret")
    reply = make_comment(person, post_id, parent_id=parent)
    leaf = make_comment(other, post_id, content="secret")
    assert client.put(f"/comments/{reply}/vote", headers=other.headers).status_code == 200

    assert client.delete("/users/me", headers=other.headers).status_code == 204

    assert "secret" not in client.get(f"/posts/{post_id}/comments", headers=person.headers).text
    for each in (parent, leaf):
        shown = client.get(f"/comments/{each}", headers=person.headers).json()
        assert (shown["deleted"], shown["author"], shown["content"]) == (True, None, "")
        assert_refused(client.put(f"/comments/{each}/vote", headers=person.headers), 404, "comment_not_found")
        body = {"content": "x", "parent_id": each}
        assert_refused(
            client.post(f"/posts/{post_id}/comments", json=body, headers=person.headers), 404, "comment_not_found"
        )
    assert_refused(client.get(f"/users/{other.id}/comments", headers=person.headers), 404, "user_not_found")

    assert deletion.work() == 1

    assert rows("SELECT id, owner_id, content FROM comments ORDER BY id")[0] == (parent, None, "")
    assert ids(thread(client, person, post_id)) == [(parent, [reply])]
    assert rows("SELECT 1 FROM comment_votes") == []
    assert rows("SELECT votes FROM comment_stats WHERE comment_id = :id", id=reply) == [(0,)]
    assert comment_count(client, person, post_id) == 1
    assert rows("SELECT 1 FROM users WHERE id = :id", id=other.id) == []


# Votes.


def test_votes_are_idempotent_and_counted(
    client: TestClient, person: Person, other: Person, post_id: int, make_comment: MakeComment, rows: Rows
) -> None:
    own = make_comment(person, post_id)
    path = f"/comments/{own}/vote"
    for method, caller, votes in (
        ("PUT", person, 1), ("PUT", person, 1), ("PUT", other, 2), ("DELETE", person, 1), ("DELETE", person, 1),
    ):  # fmt: skip
        response = client.request(method, path, headers=caller.headers)
        assert response.status_code == 200
        assert response.json() == {"comment_id": own, "votes": votes, "voted": method == "PUT"}

    assert rows("SELECT comment_id, user_id FROM comment_votes") == [(own, other.id)]
    assert rows("SELECT votes FROM comment_stats") == [(1,)]
    read = {reader.id: thread(client, reader, post_id)[0] for reader in (person, other)}
    assert {key: (each["votes"], each["voted"]) for key, each in read.items()} == {
        person.id: (1, False), other.id: (1, True),
    }  # fmt: skip


# A user's comments.


def test_comments_of_a_user_are_listed_newest_first(
    client: TestClient, person: Person, other: Person, post_id: int, make_post: MakePost, make_comment: MakeComment
) -> None:
    first = make_comment(other, post_id)
    make_comment(person, post_id)
    reply = make_comment(other, make_post(person), content="elsewhere")
    last = make_comment(other, post_id, parent_id=first)
    path = f"/users/{other.id}/comments"

    page = client.get(path, params={"limit": 2}, headers=person.headers)
    rest = client.get(linked(page) or "", headers=person.headers)

    assert [each["id"] for each in page.json() + rest.json()] == [last, reply, first]
    assert all(set(each) == COMMENT for each in page.json())
    assert "Link" not in rest.headers
    assert "Link" not in client.get(path, params={"limit": 3}, headers=person.headers).headers
    assert_refused(client.get("/users/1000000/comments", headers=person.headers), 404, "user_not_found")


def test_a_list_with_many_invisible_comments_reads_a_bounded_number_of_them(
    client: TestClient, person: Person, other: Person, make_post: MakePost, make_comment: MakeComment,
    connection: Connection,
) -> None:  # fmt: skip
    visible = make_comment(other, make_post(person))
    draft = make_post(other, published=False)
    connection.execute(
        text("INSERT INTO comments (post_id, owner_id, content) SELECT :post, :owner, 'x' FROM generate_series(1, :n)"),
        {"post": draft, "owner": other.id, "n": comment.MAX_ROWS_READ},
    )

    first = client.get(f"/users/{other.id}/comments", headers=person.headers)
    assert first.json() == []
    rest = client.get(linked(first) or "", headers=person.headers)

    assert [each["id"] for each in rest.json()] == [visible]
    assert "Link" not in rest.headers


def test_a_list_of_long_comments_is_cut_to_a_page(
    client: TestClient, person: Person, post_id: int, make_comment: MakeComment
) -> None:
    comments = [make_comment(person, post_id, content="\x01" * 10_000) for _ in range(20)]
    path = f"/users/{person.id}/comments?limit=100"

    first = client.get(path, headers=person.headers)
    rest = client.get(linked(first) or "", headers=person.headers)

    assert len(first.content) <= MAX_PAGE_BYTES
    assert [each["id"] for each in first.json() + rest.json()] == comments[::-1]
    assert (len(first.json()), "Link" in rest.headers) == (16, False)
