"""`/posts`: writing, reading, changing, deleting, drafts.

Ordering and walking lists: tests/services.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Connection
from sqlalchemy import text as sql
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person, located

NEW = {"title": "Top beaches", "content": "Check these out"}
FLAT = {
    "id",
    "title",
    "content",
    "published",
    "created_at",
    "updated_at",
    "published_at",
    "owner_id",
    "owner",
    "tags",
    "media",
    "locked",
    "removal_reason",
}
JSON = {"Content-Type": "application/json"}
IMPOSSIBLE_IDS = [0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400]


@pytest.fixture
def make_draft(make_post: Callable[..., int]) -> Callable[[Person], int]:
    return lambda owner: make_post(owner, published=False)


# Writing.


def test_a_post_is_written_and_answered_flat(client: TestClient, person: Person, rows: Rows) -> None:
    response = client.post("/posts", json=NEW, headers=person.headers)

    assert response.status_code == 201
    body = response.json()
    assert set(body) == FLAT
    assert set(body["owner"]) == {"id", "username", "created_at", "email"}
    assert (body["title"], body["content"], body["published"]) == ("Top beaches", "Check these out", True)
    assert body["owner_id"] == body["owner"]["id"] == person.id
    assert datetime.fromisoformat(body["created_at"]).utcoffset() == timedelta(0)
    assert located(response) == f"/posts/{body['id']}"
    assert rows("SELECT id, title, content, published, owner_id FROM posts") == [
        (body["id"], "Top beaches", "Check these out", True, person.id)
    ]
    assert rows("SELECT post_id, votes FROM post_stats") == [(body["id"], 0)]


def test_a_draft_is_written_as_one(client: TestClient, person: Person, rows: Rows) -> None:
    response = client.post("/posts", json=NEW | {"published": False}, headers=person.headers)

    assert response.json()["published"] is False
    assert rows("SELECT published FROM posts") == [(False,)]


@pytest.mark.parametrize("path", ["/posts", "/posts/", "/v1/posts", "/v1/posts/"])
def test_every_spelling_of_the_path_is_served_directly(
    client: TestClient, person: Person, rows: Rows, path: str
) -> None:
    written = client.post(path, json=NEW, headers=person.headers)
    assert written.status_code == 201
    assert client.get(path, headers=person.headers).status_code == 200
    post_path = path.rstrip("/") + f"/{written.json()['id']}" + ("/" if path.endswith("/") else "")
    assert client.get(post_path, headers=person.headers).status_code == 200
    assert client.delete(post_path, headers=person.headers).status_code == 204
    assert rows("SELECT 1 FROM posts") == []


def test_read_only_and_unknown_fields_are_ignored_and_never_stored(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    extra = {
        "id": 7_777_777, "owner_id": other.id, "owner": {"id": other.id}, "created_at": "2000-01-01T00:00:00Z",
        "version": 9, "updated_at": "2000-01-01T00:00:00Z", "votes": 99, "search": "x", "rating": 4,
    }  # fmt: skip
    stored = "SELECT owner_id, id <> 7777777, created_at > now() - interval '1 minute', version FROM posts"

    post_id = client.post("/posts", json=NEW | extra, headers=person.headers).json()["id"]
    assert rows(stored) == [(person.id, True, True, 1)]

    for number, method in enumerate(["PUT", "PATCH"], start=2):
        changed = NEW | extra | {"title": f"by {method}"}
        response = client.request(method, f"/posts/{post_id}", json=changed, headers=person.headers)
        assert set(response.json()) == FLAT
        assert rows(stored) == [(person.id, True, True, number)]
    assert rows("SELECT votes FROM post_stats") == [(0,)]


@pytest.mark.parametrize("field", ["title", "content"])
def test_lengths_at_the_bounds_are_kept_and_past_them_refused(
    client: TestClient, person: Person, rows: Rows, field: str
) -> None:
    most = {"title": 300, "content": 40_000}[field]
    for text in ("x", "x" * most, "\N{PILE OF POO}" * most):
        response = client.post("/posts", json=NEW | {field: text}, headers=person.headers)
        assert response.status_code == 201
        assert response.json()[field] == text
        assert rows(f"SELECT {field} FROM posts ORDER BY id DESC LIMIT 1") == [(text,)]
    kept = rows("SELECT id FROM posts ORDER BY id")

    for text in ("", "x" * (most + 1), "\N{PILE OF POO}" * (most + 1)):
        for method, path in (("POST", "/posts"), ("PUT", f"/posts/{kept[0][0]}"), ("PATCH", f"/posts/{kept[0][0]}")):
            response = client.request(method, path, json=NEW | {field: text}, headers=person.headers)
            assert_refused(response, 422, "validation_failed")
    assert rows("SELECT id FROM posts ORDER BY id") == kept
    assert rows("SELECT count(*) FROM posts WHERE version <> 1") == [(0,)]


@pytest.mark.parametrize(
    "body",
    [
        {}, [], None, "text", 7, [NEW], {"title": "only"}, {"content": "only"}, NEW | {"title": None},
        NEW | {"title": 7}, NEW | {"title": ["x"]}, NEW | {"content": {"x": 1}}, NEW | {"published": "perhaps"},
        NEW | {"published": 2}, NEW | {"published": None}, NEW | {"title": "a\0b"}, NEW | {"content": "\0"},
        NEW | {"title": "\ud800"}, NEW | {"content": "a\udfffb"}, NEW | {"title": float("nan")},
        NEW | {"content": float("inf")}, NEW | {"published": float("-inf")}, NEW | {"published": 10**400},
    ],
)  # fmt: skip
def test_a_malformed_post_is_refused_and_nothing_is_written(
    client: TestClient, person: Person, rows: Rows, body: object
) -> None:
    response = client.post("/posts", content=json.dumps(body).encode(), headers=person.headers | JSON)

    assert_refused(response, 422, "validation_failed")
    assert all(set(problem) == {"type", "loc", "msg"} for problem in response.json()["detail"])
    assert rows("SELECT 1 FROM posts") == []


def test_the_last_value_of_a_duplicate_json_key_counts(client: TestClient, person: Person) -> None:
    body = b'{"title": "first", "content": "c", "title": "last"}'

    assert client.post("/posts", content=body, headers=person.headers | JSON).json()["title"] == "last"


def test_text_comes_back_as_it_was_sent(client: TestClient, person: Person, rows: Rows) -> None:
    text = "Ünï¢ødé \N{PILE OF POO}\u2028<script>alert('%s')</script>\r\n\t' OR 1=1; -- \\u0000 {{x}} %(id)s :id"

    post_id = client.post("/posts", json={"title": text, "content": text}, headers=person.headers).json()["id"]

    assert client.get(f"/posts/{post_id}", headers=person.headers).json()["Post"]["content"] == text
    assert rows("SELECT title, content FROM posts") == [(text, text)]


# Reading.


def test_a_post_is_read_with_its_votes_and_whether_the_caller_voted(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], cast_votes: Callable[..., None]
) -> None:
    post_id = make_post(person)
    cast_votes(post_id, [other])

    mine = client.get(f"/posts/{post_id}", headers=person.headers).json()
    theirs = client.get(f"/posts/{post_id}", headers=other.headers).json()

    assert set(mine) == {"Post", "votes", "comments", "voted", "bookmarked"}
    assert set(mine["Post"]) == FLAT
    assert set(mine["Post"]["owner"]) == {"id", "username", "created_at", "email"}
    assert (mine["votes"], mine["voted"]) == (1, False)
    assert (theirs["votes"], theirs["voted"]) == (1, True)


def test_a_list_is_a_bare_array_of_the_same_shape(
    client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)

    assert client.get("/posts", headers=person.headers).json() == [
        client.get(f"/posts/{post_id}", headers=person.headers).json()
    ]


@pytest.mark.parametrize("query", [
    "limit=0", "limit=-1", "limit=x", "skip=-1", "skip=10001", "sort=random", "owner_id=x", "published=perhaps",
    "created_after=yesterday", "created_after=20240310", "created_before=1710028800", "created_after=1e9",
    "created_after=-1", "created_after=2024-03-10T00:00:00 1", "created_after=2024-03-10 02:00 02:00 02:00",
    "search=%00", "search=" + "x" * 501, "cursor=garbage", "cursor=%C3%BC",
    "created_before=0001-01-01T00:00:00%2B23:59", "created_after=9999-12-31T23:59:59-23:59", "created_after=1e400",
])  # fmt: skip
def test_parameters_out_of_range_are_refused(client: TestClient, person: Person, query: str) -> None:
    assert client.get(f"/posts?{query}", headers=person.headers).status_code == 422


@pytest.mark.parametrize("query", [
    "limit=1", "limit=100", "limit=101", f"limit={10**30}", "skip=10000",
    "owner_id=0", "owner_id=-1", f"owner_id={2**63}", f"owner_id={10**400}",
    "created_after=2020-01-01T00:00:00%2B23:59", "created_before=2020-01-01T00:00:00-23:59", "unknown=%00",
    "created_after=0001-01-01T00:00:00", "created_before=9999-12-31T23:59:59Z", "search=", "search=%25_%27%22%5C",
    "search=%22%20-%20OR%20%26%20%7C%20%21%20%28%3A%2A", "search=%ED%A0%80%FF",
])  # fmt: skip
def test_parameters_at_the_edge_are_answered(client: TestClient, person: Person, query: str) -> None:
    response = client.get(f"/posts?{query}", headers=person.headers)

    assert (response.status_code, response.json()) == (200, [])


@pytest.mark.parametrize("post_id", IMPOSSIBLE_IDS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_post_that_cannot_exist_is_not_found(client: TestClient, person: Person, method: str, post_id: int) -> None:
    body = NEW if method in {"PUT", "PATCH"} else None

    response = client.request(method, f"/posts/{post_id}", json=body, headers=person.headers)

    shown = post_id if -(2**63) <= post_id < 2**63 else "out of range"
    assert_refused(response, 404, "post_not_found", f"post with id: {shown} was not found")


@pytest.mark.parametrize("post_id", ["x", "1.5", "NaN", "1e3", "0x1", "%F0%9F%92%A9", "1%201", "--1"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_an_id_that_is_not_a_number_is_malformed(client: TestClient, person: Person, method: str, post_id: str) -> None:
    body = NEW if method in {"PUT", "PATCH"} else None

    assert_refused(
        client.request(method, f"/posts/{post_id}", json=body, headers=person.headers), 422, "validation_failed"
    )


# Changing.


def test_put_replaces_everything_and_patch_what_it_names(client: TestClient, person: Person, rows: Rows) -> None:
    post_id = client.post("/posts", json=NEW | {"published": False}, headers=person.headers).json()["id"]
    stored = "SELECT title, content, published, version, updated_at > created_at FROM posts"

    patched = client.patch(f"/posts/{post_id}", json={"title": "Changed"}, headers=person.headers)
    assert patched.status_code == 200
    assert set(patched.json()) == FLAT
    assert rows(stored) == [("Changed", "Check these out", False, 2, True)]

    put = client.put(f"/posts/{post_id}", json={"title": "Other", "content": "text"}, headers=person.headers)
    assert put.status_code == 200
    assert set(put.json()) == FLAT
    assert rows(stored) == [("Other", "text", True, 3, False)]

    assert_refused(
        client.put(f"/posts/{post_id}", json={"title": "no content"}, headers=person.headers), 422, "validation_failed"
    )
    assert rows(stored) == [("Other", "text", True, 3, False)]


@pytest.mark.parametrize("role", ["user", "moderator", "admin"])
def test_only_the_owner_changes_a_post(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int], rows: Rows,
    role: str,
) -> None:  # fmt: skip
    post_id = make_post(person)
    headers = make_person(role=role).headers
    before = rows("SELECT posts::text FROM posts")

    for method in ("PUT", "PATCH"):
        for extra in ({}, {"If-Match": "*"}, {"If-Match": '"1"'}, {"If-Match": '"7"'}, {"If-Match": "garbage"}):
            response = client.request(method, f"/posts/{post_id}", json=NEW, headers=headers | extra)
            assert_refused(response, 403, "not_authorized", "Not authorized to perform requested action")

    assert rows("SELECT posts::text FROM posts") == before


@pytest.mark.parametrize("if_match", ['"1"', '"7"', "garbage", "*"])
def test_a_missing_post_is_404_for_any_expected_version(client: TestClient, person: Person, if_match: str) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        body = None if method == "DELETE" else NEW
        response = client.request(method, "/posts/0", json=body, headers=person.headers | {"If-Match": if_match})
        assert_refused(response, 404, "post_not_found")


# Deleting.


def test_deleting_a_post_deletes_its_votes(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], cast_votes: Callable[..., None],
    rows: Rows,
) -> None:  # fmt: skip
    post_id, another = make_post(person), make_post(person)
    cast_votes(post_id, [person, other])
    cast_votes(another, [other])

    response = client.delete(f"/posts/{post_id}", headers=person.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert rows("SELECT id FROM posts") == [(another,)]
    assert rows("SELECT post_id, user_id FROM votes") == [(another, other.id)]
    assert rows("SELECT post_id, votes FROM post_stats") == [(another, 1)]
    assert_refused(client.delete(f"/posts/{post_id}", headers=person.headers), 404, "post_not_found")


@pytest.mark.parametrize(("role", "status"), [("user", 403), ("moderator", 204), ("admin", 204)])
def test_only_moderators_delete_posts_of_other_users(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int], rows: Rows,
    role: str, status: int,
) -> None:  # fmt: skip
    post_id = make_post(person)

    response = client.delete(f"/posts/{post_id}", headers=make_person(role=role).headers)

    assert response.status_code == status
    if status == 403:
        assert_refused(response, 403, "not_authorized", "Not authorized to perform requested action")
    assert rows("SELECT id FROM posts") == ([(post_id,)] if status == 403 else [])


# Drafts.

DRAFT_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/posts/{id}", None),
    ("PUT", "/posts/{id}", NEW),
    ("PATCH", "/posts/{id}", {"title": "mine"}),
    ("DELETE", "/posts/{id}", None),
    ("PUT", "/posts/{id}/vote", None),
    ("DELETE", "/posts/{id}/vote", None),
]


@pytest.mark.parametrize("if_match", ["", "*", '"1"', '"7"'])
@pytest.mark.parametrize(("method", "path", "body"), DRAFT_ROUTES)
def test_a_draft_does_not_exist_for_others(
    client: TestClient, person: Person, other: Person, make_draft: Callable[[Person], int], rows: Rows, method: str,
    path: str, body: dict[str, Any] | None, if_match: str,
) -> None:  # fmt: skip
    draft_id = make_draft(person)
    before = rows("SELECT posts::text FROM posts")
    headers = other.headers | ({"If-Match": if_match} if if_match else {})

    there = client.request(method, path.format(id=draft_id), json=body, headers=headers)
    missing = client.request(method, path.format(id=draft_id + 1_000_000), json=body, headers=headers)

    assert_refused(there, 404, "post_not_found")
    assert there.json()["detail"].replace(str(draft_id), "") == missing.json()["detail"].replace(
        str(draft_id + 1_000_000), ""
    )
    assert rows("SELECT posts::text FROM posts") == before
    assert rows("SELECT 1 FROM votes") == []


@pytest.mark.parametrize("role", ["owner", "user", "moderator", "admin"])
def test_votes_for_drafts_are_refused(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_draft: Callable[[Person], int],
    rows: Rows, role: str,
) -> None:  # fmt: skip
    draft_id = make_draft(person)
    headers = (person if role == "owner" else make_person(role=role)).headers

    for direction in (1, 0):
        response = client.post("/vote", json={"post_id": draft_id, "vote_dir": direction}, headers=headers)
        assert_refused(response, 404, "post_not_found", f"Post with id: {draft_id} does not exist")
    for method in ("PUT", "DELETE"):
        assert_refused(client.request(method, f"/posts/{draft_id}/vote", headers=headers), 404, "post_not_found")

    assert rows("SELECT 1 FROM votes") == []
    assert rows("SELECT votes FROM post_stats") == [(0,)]


@pytest.mark.parametrize("role", ["owner", "moderator", "admin"])
def test_a_draft_is_read_by_its_owner_and_by_moderators(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_draft: Callable[[Person], int],
    role: str,
) -> None:  # fmt: skip
    draft_id = make_draft(person)
    headers = (person if role == "owner" else make_person(role=role)).headers

    assert client.get(f"/posts/{draft_id}", headers=headers).json()["Post"]["published"] is False
    assert client.get("/posts", headers=headers).json() == []
    assert client.get(f"/posts?owner_id={person.id}", headers=headers).json() == []
    (item,) = client.get(f"/posts?published=false&owner_id={person.id}", headers=headers).json()
    assert item["Post"]["id"] == draft_id


def test_lists_of_drafts_hold_own_drafts_only(
    client: TestClient, person: Person, other: Person, make_draft: Callable[[Person], int]
) -> None:
    mine, _ = make_draft(person), make_draft(other)

    assert [item["Post"]["id"] for item in client.get("/posts?published=false", headers=person.headers).json()] == [
        mine
    ]
    assert client.get(f"/posts?published=false&owner_id={other.id}", headers=person.headers).json() == []


@pytest.mark.parametrize(
    ("role", "status", "code"), [("moderator", 403, "not_authorized"), ("user", 404, "post_not_found")]
)
def test_moderators_see_a_draft_but_do_not_change_it(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_draft: Callable[[Person], int],
    rows: Rows, role: str, status: int, code: str,
) -> None:  # fmt: skip
    draft_id = make_draft(person)

    response = client.patch(f"/posts/{draft_id}", json=NEW, headers=make_person(role=role).headers)

    assert_refused(response, status, code)
    assert rows("SELECT version FROM posts") == [(1,)]


def test_a_post_that_becomes_a_draft_is_gone_for_others_with_its_votes_kept(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], rows: Rows
) -> None:
    post_id = make_post(person)
    client.put(f"/posts/{post_id}/vote", headers=other.headers)

    client.patch(f"/posts/{post_id}", json={"published": False}, headers=person.headers)

    assert_refused(client.get(f"/posts/{post_id}", headers=other.headers), 404, "post_not_found")
    assert client.get("/posts", headers=other.headers).json() == []
    assert client.get("/users/me/votes", headers=other.headers).json() == []
    assert_refused(client.delete(f"/posts/{post_id}/vote", headers=other.headers), 404, "post_not_found")
    assert rows("SELECT user_id FROM votes") == [(other.id,)]

    client.patch(f"/posts/{post_id}", json={"published": True}, headers=person.headers)
    assert client.get(f"/posts/{post_id}", headers=other.headers).json()["votes"] == 1


INVISIBLE = [
    " ", "\t\n", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "\N{ZERO WIDTH SPACE}", "\N{ZERO WIDTH JOINER}" * 300,
    "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{RIGHT-TO-LEFT ISOLATE}\N{POP DIRECTIONAL ISOLATE}", "\N{HANGUL FILLER}",
    "\N{HALFWIDTH HANGUL FILLER}", "\N{HANGUL CHOSEONG FILLER}", "\N{BRAILLE PATTERN BLANK}", "\N{SOFT HYPHEN}",
    "\N{ZERO WIDTH NO-BREAK SPACE}", "\N{VARIATION SELECTOR-16}", "\N{COMBINING GRAPHEME JOINER}", "\N{TAG SPACE}",
    "\N{WORD JOINER} \N{LINE SEPARATOR}", "\x01\x7f\x85",
]  # fmt: skip


@pytest.mark.parametrize("invisible", INVISIBLE)
@pytest.mark.parametrize("field", ["title", "content"])
def test_an_invisible_text_is_refused(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows, field: str, invisible: str
) -> None:
    post_id = make_post(person)
    before = rows("SELECT posts::text FROM posts")
    body = NEW | {field: invisible}

    for method, path in (("POST", "/posts"), ("PUT", f"/posts/{post_id}"), ("PATCH", f"/posts/{post_id}")):
        response = client.request(method, path, json=body, headers=person.headers)
        assert_refused(response, 422, "validation_failed")
        assert response.json()["detail"] == [
            {"type": "string_invisible", "loc": ["body", field], "msg": "String should have a visible character"}
        ]
    assert rows("SELECT posts::text FROM posts") == before


@pytest.mark.parametrize(
    "visible", [f"{INVISIBLE[4]}a", "\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", ".",
                "\N{COMBINING ACUTE ACCENT}", "\N{BRAILLE PATTERN DOTS-1}", "  x  ", "\N{HANGUL SYLLABLE GA}"]
)  # fmt: skip
def test_a_text_with_one_visible_character_is_kept_as_it_is(
    client: TestClient, person: Person, rows: Rows, visible: str
) -> None:
    body = {"title": visible, "content": visible}

    assert client.post("/posts", json=body, headers=person.headers).status_code == 201
    assert rows("SELECT title, content FROM posts") == [(visible, visible)]


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("created_after=2024-03-10", True),
        ("created_after=2024-03-10T12:00:00Z", False),
        ("created_after=2024-03-10T12:30:00%2B02:00", True),
        ("created_after=2024-03-10T12:30:00+02:00", True),
        ("created_after=2024-03-10T12:30:00.5+0200", True),
        ("created_after=2024-03-10T14:30:00+02:00", False),
        ("created_after=2024-03-10T12:30+02:00", True),
        ("created_before=2024-03-11", True),
        ("created_before=2024-03-10 11:00:00", False),
    ],
)
def test_times_in_a_query_are_understood_as_people_write_them(
    client: TestClient, person: Person, make_post: Callable[..., int], query: str, is_found: bool
) -> None:
    make_post(person, created_at="2024-03-10 11:30:00+00")

    response = client.get(f"/posts?{query}", headers=person.headers)

    assert response.status_code == 200
    assert len(response.json()) == is_found


def test_a_draft_that_is_published_is_new_then_and_only_once(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], connection: Connection
) -> None:
    draft = make_post(person, published=False)
    connection.execute(sql("UPDATE posts SET created_at = created_at - interval '7 days'"))
    earlier = [make_post(other), make_post(person)]

    def shown(query: str = "") -> list[int]:
        return [item["Post"]["id"] for item in client.get(f"/posts?{query}", headers=other.headers).json()]

    def own() -> dict[str, Any]:
        post: dict[str, Any] = client.get(f"/posts/{draft}", headers=person.headers).json()["Post"]
        return post

    def change(method: str, **fields: object) -> None:
        assert client.request(method, f"/posts/{draft}", json=fields, headers=person.headers).status_code == 200

    assert own()["published_at"] is None
    last_seen = client.get("/posts", headers=other.headers).json()[0]["Post"]["created_at"]
    hot = "SELECT hot FROM post_stats WHERE post_id = :id"
    before = connection.execute(sql(hot), {"id": draft}).scalar_one()
    change("PATCH", published=True)
    published = own()

    assert published["published_at"] == published["created_at"] == published["updated_at"] > last_seen
    assert shown() == shown("sort=hot") == [draft, *earlier[::-1]]
    assert shown("sort=old") == [*earlier, draft]
    assert shown(f"created_after={quote(last_seen)}") == [draft]
    assert connection.execute(sql(hot), {"id": draft}).scalar_one() > before + 10

    later = make_post(other)
    for _ in range(2):
        change("PATCH", published=False)
        assert own()["published_at"] == published["published_at"]
        change("PUT", title="t", content="again", published=True)
        assert (own()["created_at"], own()["published_at"]) == (published["created_at"], published["published_at"])
    assert shown() == [later, draft, *earlier[::-1]]


def test_a_post_that_was_published_when_it_was_created_is_not_new_again(
    client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    post_id, later = make_post(person), make_post(person)

    def own() -> dict[str, Any]:
        post: dict[str, Any] = client.get(f"/posts/{post_id}", headers=person.headers).json()["Post"]
        return post

    first = own()
    assert first["published_at"] == first["created_at"]
    for is_published in (True, False, True):
        client.patch(f"/posts/{post_id}", json={"published": is_published}, headers=person.headers)
        assert (own()["created_at"], own()["published_at"]) == (first["created_at"], first["created_at"])
    assert [item["Post"]["id"] for item in client.get("/posts", headers=person.headers).json()] == [later, post_id]
