"""Tags of posts, lists of tags and of a tag's posts, and follows: status, code and rows."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.schemas.types import normalized_tag
from app.services import tag as tags
from tests.contract.answers import assert_refused
from tests.fixtures import Person, linked
from tests.services.walking import rows

MakePost = Callable[..., int]
MakePerson = Callable[..., Person]
NEW = {"title": "title", "content": "content"}


@pytest.fixture
def post(client: TestClient, person: Person) -> Callable[..., Any]:
    """Send a post and return the answer: `post(tags=["a"])`."""
    return lambda by=person, **fields: client.post("/posts", json=NEW | fields, headers=by.headers)


@pytest.fixture
def listed(client: TestClient, person: Person) -> Callable[..., list[int]]:
    """The ids that `GET /posts` shows."""

    def listed(by: Person = person, **parameters: Any) -> list[int]:
        response = client.get("/posts", params={"limit": 100, **parameters}, headers=by.headers)
        assert response.status_code == 200, response.text
        return [item["Post"]["id"] for item in response.json()]

    return listed


def counts(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return posts and followers of each tag."""
    found = connection.execute(text("SELECT name, posts, followers FROM tags JOIN tag_stats ON tag_id = id"))
    return {row.name: (row.posts, row.followers) for row in found}


# Tags of posts


def test_tags_of_a_new_post_are_shown_in_every_answer(client: TestClient, person: Person, post: Any) -> None:
    answer = post(tags=["travel", "food"])

    assert answer.status_code == 201
    assert answer.json()["tags"] == ["travel", "food"]
    path = answer.headers["Location"]
    assert client.get(path, headers=person.headers).json()["Post"]["tags"] == ["travel", "food"]
    (item,) = client.get("/posts", headers=person.headers).json()
    assert item["Post"]["tags"] == ["travel", "food"]
    (item,) = client.get("/posts?search=title", headers=person.headers).json()
    assert item["Post"]["tags"] == ["travel", "food"]


def test_post_without_tags_has_none_and_writes_no_rows(post: Any, connection: Connection) -> None:
    assert post().json()["tags"] == []
    assert counts(connection) == {}


@pytest.mark.parametrize("fields", [{"tags": None}, {"tags": "travel"}, {"tags": {}}, {"tags": [1]}, {"tags": [None]}])
def test_tags_of_another_type_are_refused(post: Any, connection: Connection, fields: dict[str, Any]) -> None:
    answer = post(**fields)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", "tags"]
    assert rows(connection, "SELECT id FROM posts") == []


def test_replacing_a_post_replaces_its_tags_unless_the_client_knows_none(
    client: TestClient, person: Person, post: Any, connection: Connection
) -> None:
    path = post(tags=["a", "b"]).headers["Location"]

    replaced = client.put(path, json=NEW | {"tags": ["b", "c"]}, headers=person.headers)
    assert (replaced.status_code, replaced.json()["tags"]) == (200, ["b", "c"])
    assert counts(connection) == {"a": (0, 0), "b": (1, 0), "c": (1, 0)}

    assert client.put(path, json=NEW, headers=person.headers).json()["tags"] == ["b", "c"]
    assert client.put(path, json=NEW | {"tags": []}, headers=person.headers).json()["tags"] == []
    assert {name for name, found in counts(connection).items() if found != (0, 0)} == set()
    assert rows(connection, "SELECT tag_id FROM post_tags") == []


def test_changing_a_post_keeps_its_tags_unless_they_are_sent(
    client: TestClient, person: Person, post: Any, connection: Connection
) -> None:
    path = post(tags=["a"]).headers["Location"]

    def change(**fields: Any) -> Any:
        answer = client.patch(path, json=fields, headers=person.headers)
        assert answer.status_code == 200
        return answer.json()["tags"]

    assert change(title="other") == ["a"]
    assert change(tags=None) == ["a"]
    assert change(tags=["b", "a"]) == ["b", "a"]
    assert change(tags=["a", "b"]) == ["a", "b"]
    assert change(tags=[]) == []
    assert rows(connection, "SELECT version FROM posts") == [5]


def test_changed_tags_change_the_etag_and_the_same_tags_do_not(client: TestClient, person: Person, post: Any) -> None:
    path = post(tags=["a"]).headers["Location"]
    before, page_before = (client.get(p, headers=person.headers).headers["ETag"] for p in (path, "/posts"))

    client.patch(path, json={"tags": ["A"]}, headers=person.headers)
    assert client.get(path, headers=person.headers).headers["ETag"] == before

    client.patch(path, json={"tags": ["b"]}, headers=person.headers)
    assert client.get(path, headers=person.headers).headers["ETag"] != before
    assert client.get("/posts", headers=person.headers).headers["ETag"] != page_before


def test_repeated_creation_with_a_key_has_the_tags_of_the_first(client: TestClient, person: Person) -> None:
    headers = person.headers | {"Idempotency-Key": "k"}
    first = client.post("/posts", json=NEW | {"tags": ["a"]}, headers=headers)
    assert client.post("/posts", json=NEW | {"tags": ["a"]}, headers=headers).json() == first.json()
    assert client.post("/posts", json=NEW | {"tags": ["b"]}, headers=headers).json()["code"] == "idempotency_mismatch"


# Normal form

NORMAL_FORMS = {
    "Travel": "travel",
    "STRASSE": "strasse",
    "straße": "strasse",
    "ﬁne": "fine",
    "Ｆｕｌｌ": "full",
    "²": "2",
    "é": "é",
    "e\u0301": "é",
    "İ": "i\u0307",
    "Σίσυφος": "σίσυφοσ",
    "東京": "東京",
    "हिन्दी": "हिन्दी",
    "ที่": "ที่",
    "c-3_po": "c-3_po",
    "٣": "٣",
    "e\u0301" * 30: "é" * 30,
    "x" * 30: "x" * 30,
}


def test_tag_is_stored_in_its_normal_form(post: Any, client: TestClient, person: Person, listed: Any) -> None:
    for sent, stored in NORMAL_FORMS.items():
        answer = post(tags=[sent])
        assert answer.status_code == 201, answer.text
        assert answer.json()["tags"] == [stored]
        found = listed(tag=sent)
        assert found[0] == answer.json()["id"]
        assert listed(tag=stored) == found
        state = client.put(f"/tags/{quote(sent)}/follow", headers=person.headers)
        assert state.json() == {"name": stored, "posts": len(found), "followed": True, "followers": 1}


MALFORMED = [
    "", " ", "a b", "#a", "a.b", "a/b", "-", "_-", "a\0", "\ud800", "a\u200b", "a\u200d", "\u3164", "\u115f", "\u180e",
    "a\ufe0f", "😀", "\u0301", "-\u0301", "1\u0301", "q\u0301\u0302\u0303", "a\u034f", "x" * 31, "ﷺ", "ŉ" * 16,
    "㍿" * 8, "x" * 101, "\u202ea", "٪", "½", "a\n",
]  # fmt: skip


def test_malformed_tag_is_refused_where_it_stands(client: TestClient, person: Person, connection: Connection) -> None:
    headers = person.headers | {"Content-Type": "application/json"}
    accepted = []
    for name in MALFORMED:
        answer = client.post("/posts", content=json.dumps(NEW | {"tags": ["a", name]}), headers=headers)
        if answer.status_code != 422 or answer.json()["detail"][0]["loc"] not in (["body", "tags", 1], ["body"]):
            accepted.append((ascii(name), answer.text))
    assert accepted == []
    assert rows(connection, "SELECT id FROM posts") == rows(connection, "SELECT id FROM tags") == []


def test_malformed_tag_of_a_list_or_a_follow_is_refused(
    client: TestClient, person: Person, connection: Connection
) -> None:
    accepted = []
    for name in MALFORMED:
        if name == "\ud800":
            continue
        answer = client.get("/posts", params={"tag": name}, headers=person.headers)
        if answer.status_code != 422 or answer.json()["detail"][0]["loc"] != ["query", "tag"]:
            accepted.append((ascii(name), answer.text))
        if name in {"", "a/b", "a\n", "a\0"}:  # No route has such a path.
            continue
        answer = client.put(f"/tags/{quote(name, safe='')}/follow", headers=person.headers)
        if answer.status_code != 422 or answer.json()["detail"][0]["loc"] != ["path", "name"]:
            accepted.append((ascii(name), answer.text))
    assert accepted == []
    assert rows(connection, "SELECT id FROM tags") == []


def test_equal_tags_are_merged_and_keep_their_order(post: Any) -> None:
    assert post(tags=["b", "a", "B", "ａ"]).json()["tags"] == ["b", "a"]


def test_sixth_tag_is_refused(post: Any) -> None:
    assert post(tags=list("abcde")).status_code == 201
    answer = post(tags=list("abcdef"))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "tags"]


def test_normal_form_of_every_character_is_its_own_normal_form() -> None:
    normalized = {}
    for character in map(chr, range(0x110000)):
        try:
            normalized[character] = normalized_tag(character)
        except ValueError:
            continue
    assert len(normalized) > 100_000
    assert [character for character, name in normalized.items() if normalized_tag(name) != name] == []
    assert {unicodedata.category(part)[0] for name in normalized.values() for part in name} <= {"L", "N", "M"}


# The posts of a tag


@pytest.mark.parametrize("sort", ["new", "old", "top", "hot"])
def test_list_of_a_tag_has_its_published_posts_in_each_order(
    listed: Any, make_post: MakePost, make_person: MakePerson, person: Person, cast_votes: Any, sort: str
) -> None:
    post_ids = [make_post(person, tags=["a", "b"] if n % 2 else ["b"], created_at=f"2026-01-0{n}") for n in range(1, 8)]
    make_post(person, tags=["a"], published=False)
    make_post(person)
    for number, post_id in enumerate(post_ids):
        cast_votes(post_id, [make_person() for _ in range(number * 3 % 5)])

    everything = listed(sort=sort)
    assert listed(sort=sort, tag="a") == [post_id for post_id in everything if post_id in post_ids[::2]]
    assert len(listed(sort=sort, tag="a")) == 4
    assert listed(sort=sort, tag="b") == [post_id for post_id in everything if post_id in post_ids]
    assert listed(sort=sort, tag="unknown") == []


@pytest.mark.parametrize("sort", ["new", "old", "top", "hot"])
@pytest.mark.parametrize(
    "filters",
    [
        {}, {"owner_id": True}, {"created_after": "2026-01-05"}, {"created_before": "2026-01-12"},
        {"created_after": "2026-01-03", "created_before": "2026-01-18", "owner_id": True}, {"search": "word"},
        {"search": "word", "owner_id": True, "created_after": "2026-01-03"},
    ],
)  # fmt: skip
def test_tag_combines_with_every_filter_and_cursor(
    client: TestClient, make_post: MakePost, make_person: MakePerson, person: Person, cast_votes: Any, listed: Any,
    sort: str, filters: dict[str, Any],
) -> None:  # fmt: skip
    people = [person, make_person()]
    tagged = set()
    for n in range(1, 25):
        post_id = make_post(
            people[n % 2], tags=["a"] if n % 3 else ["b"], created_at=f"2026-01-{n:02}",
            content="word" if n % 4 else "other",
        )  # fmt: skip
        tagged |= {post_id} if n % 3 else set()
        cast_votes(post_id, people[: n % 3])
    filters = {key: person.id if value is True else value for key, value in filters.items()}
    expected = [post_id for post_id in listed(sort=sort, **filters) if post_id in tagged]
    assert len(expected) >= 3

    assert listed(sort=sort, tag="a", **filters) == expected
    assert listed(sort=sort, tag="a", skip=2, limit=2, **filters) == expected[2:4]
    response = client.get("/posts", params={"tag": "A", "sort": sort, "limit": 2, **filters}, headers=person.headers)
    walked = response.json()
    while (path := linked(response)) is not None:
        response = client.get(path, headers=person.headers)
        walked += response.json()
    assert [item["Post"]["id"] for item in walked] == expected
    back = linked(response, "prev")
    assert back is not None
    before = [item["Post"]["id"] for item in client.get(back, headers=person.headers).json()]
    assert before == expected[-len(response.json()) - len(before) : -len(response.json())]


def test_own_drafts_of_a_tag_are_listed_for_their_owner_only(
    listed: Any, make_post: MakePost, make_person: MakePerson, person: Person
) -> None:
    draft = make_post(person, tags=["a"], published=False)
    make_post(person, tags=["b"], published=False)
    other = make_person()
    assert listed(tag="a", published=False) == [draft]
    assert listed(other, tag="a", published=False) == listed(other, tag="a", published=False, owner_id=person.id) == []
    assert listed(make_person(role="moderator"), tag="a", published=False, owner_id=person.id) == [draft]


def test_posts_of_a_deleted_account_leave_the_list_of_a_tag_at_once(
    listed: Any, make_post: MakePost, make_person: MakePerson, connection: Connection
) -> None:
    leaving = make_person()
    make_post(leaving, tags=["a"])
    kept = make_post(make_person(), tags=["a"])
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": leaving.id})
    connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": leaving.id})
    for sort in ("new", "old", "top", "hot"):
        assert listed(tag="a", sort=sort) == [kept]


def test_publishing_a_draft_puts_it_first_in_the_list_of_its_tag(
    client: TestClient, person: Person, make_post: MakePost, listed: Any, connection: Connection
) -> None:
    draft = make_post(person, tags=["a"], published=False, created_at="2020-01-01")
    published = make_post(person, tags=["a"], created_at="2021-01-01")
    assert listed(tag="a") == [published]
    client.patch(f"/posts/{draft}", json={"published": True}, headers=person.headers)
    assert listed(tag="a") == [draft, published]
    assert counts(connection) == {"a": (2, 0)}


# Tags


@pytest.fixture
def named(client: TestClient, person: Person) -> Callable[..., list[str]]:
    """The names that `GET /tags` shows, of all pages of this many."""

    def named(limit: int = 2, **parameters: Any) -> list[str]:
        response = client.get("/tags", params={"limit": limit, **parameters}, headers=person.headers)
        assert response.status_code == 200, response.text
        names = [item["name"] for item in response.json()]
        while (path := linked(response)) is not None:
            response = client.get(path, headers=person.headers)
            assert len(response.json()) <= limit
            names += [item["name"] for item in response.json()]
        return names

    return named


@pytest.fixture
def five_tags(make_post: MakePost, person: Person) -> None:
    for tagged in (["cat", "dog"], ["cat", "Ant"], ["cat", "cow"], ["dog"], ["東京"]):
        make_post(person, tags=[normalized_tag(name) for name in tagged])
    make_post(person, tags=["draft", "cat"], published=False)


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 100])
@pytest.mark.usefixtures("five_tags")
def test_tags_are_listed_by_posts_and_by_name(named: Any, connection: Connection, limit: int) -> None:
    by_posts = rows(
        connection, "SELECT name FROM tags JOIN tag_stats ON tag_id = id WHERE posts > 0 ORDER BY posts DESC, id DESC"
    )
    assert named(limit) == by_posts
    assert by_posts[:2] == ["cat", "dog"]
    assert named(limit, sort="name") == ["ant", "cat", "cow", "dog", "東京"]


@pytest.mark.usefixtures("five_tags")
def test_prefix_narrows_both_orders(named: Any) -> None:
    for sort in ("popular", "name"):
        assert named(prefix="c", sort=sort) == ["cat", "cow"]
        assert named(prefix="C", sort=sort) == ["cat", "cow"]
        assert named(prefix="東", sort=sort) == ["東京"]
        assert named(prefix="draft", sort=sort) == named(prefix="%", sort=sort) == named(prefix="x", sort=sort) == []
        assert named(prefix="", sort=sort) == named(sort=sort)


@pytest.mark.parametrize("entries", [2, 3, 7])
@pytest.mark.parametrize("parameters", [{}, {"prefix": "c"}, {"sort": "name"}, {"sort": "name", "prefix": "c"}])
@pytest.mark.usefixtures("five_tags")
def test_pages_that_read_few_entries_show_the_same_tags(
    named: Any, monkeypatch: pytest.MonkeyPatch, connection: Connection, entries: int, parameters: dict[str, str]
) -> None:
    connection.execute(text("INSERT INTO tags (name) SELECT 'c' || n FROM generate_series(1, 9) AS n"))
    connection.execute(text("INSERT INTO tag_stats (tag_id) SELECT id FROM tags WHERE name ~ '^c[0-9]'"))
    expected = named(**parameters)
    monkeypatch.setattr(tags, "MAX_ENTRIES_READ", entries)
    assert named(limit=2, **parameters) == expected != []


def test_tag_shows_its_posts_and_whether_the_caller_follows_it(
    client: TestClient, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    make_post(person, tags=["a"])
    client.put("/tags/a/follow", headers=make_person().headers)
    assert client.get("/tags", headers=person.headers).json() == [{"name": "a", "posts": 1, "followed": False}]
    client.put("/tags/a/follow", headers=person.headers)
    assert client.get("/tags", headers=person.headers).json() == [{"name": "a", "posts": 1, "followed": True}]


@pytest.mark.usefixtures("five_tags")
def test_cursor_of_another_list_is_refused(client: TestClient, person: Person) -> None:
    first = client.get("/tags?limit=1", headers=person.headers)
    path = linked(first)
    assert path is not None
    posts = client.get("/posts?limit=1", headers=person.headers)
    other = posts.links["next"]["url"].partition("cursor=")[2]
    for wrong in (path.replace("popular", "name"), f"/tags?cursor={other}", "/tags?cursor=x", path + "x"):
        answer = client.get(wrong, headers=person.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "malformed_cursor")


# Follows


def test_following_is_idempotent_and_answers_the_fresh_state(
    client: TestClient, person: Person, make_person: MakePerson, connection: Connection
) -> None:
    other = make_person()
    state = {"name": "new-tag", "posts": 0}
    for _ in range(2):
        answer = client.put("/tags/New-Tag/follow", headers=person.headers)
        assert (answer.status_code, answer.json()) == (200, state | {"followed": True, "followers": 1})
    assert client.put("/tags/new-tag/follow", headers=other.headers).json()["followers"] == 2
    assert counts(connection) == {"new-tag": (0, 2)}
    for _ in range(2):
        answer = client.delete("/tags/new-tag/follow", headers=person.headers)
        assert (answer.status_code, answer.json()) == (200, state | {"followed": False, "followers": 1})
    assert rows(connection, "SELECT user_id FROM tag_follows") == [other.id]


def test_tag_is_read_with_its_followers_also_without_posts(
    client: TestClient, person: Person, make_person: MakePerson, make_post: MakePost, connection: Connection
) -> None:
    other = make_person()
    make_post(person, tags=["a"])
    for name, caller in (("a", person), ("a", other), ("b", other)):
        client.put(f"/tags/{name}/follow", headers=caller.headers)

    for path, state in {
        "A": {"name": "a", "posts": 1, "followers": 2, "followed": True},
        "b": {"name": "b", "posts": 0, "followers": 1, "followed": False},
        "unknown": {"name": "unknown", "posts": 0, "followers": 0, "followed": False},
    }.items():
        answer = client.get(f"/tags/{path}", headers=person.headers)
        assert (answer.status_code, answer.json()) == (200, state)
    assert counts(connection) == {"a": (1, 2), "b": (0, 1)}
    assert_refused(client.get("/tags/a b", headers=person.headers), 422, "validation_failed")


def test_unfollowing_an_unknown_tag_creates_nothing(client: TestClient, person: Person, connection: Connection) -> None:
    answer = client.delete("/tags/unknown/follow", headers=person.headers)
    assert answer.json() == {"name": "unknown", "posts": 0, "followers": 0, "followed": False}
    assert counts(connection) == {}


def test_account_follows_a_bounded_number_of_tags(
    client: TestClient, person: Person, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "MAX_FOLLOWED_TAGS", 2)
    for name in ("a", "b", "a"):
        assert client.put(f"/tags/{name}/follow", headers=person.headers).status_code == 200
    answer = client.put("/tags/c/follow", headers=person.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "quota_exceeded")
    assert counts(connection) == {"a": (0, 1), "b": (0, 1)}
    client.delete("/tags/a/follow", headers=person.headers)
    assert client.put("/tags/c/follow", headers=person.headers).status_code == 200


def test_deleting_an_account_ends_its_follows_and_counts_its_posts_no_more(
    client: TestClient, person: Person, make_post: MakePost, connection: Connection
) -> None:
    make_post(person, tags=["a", "b"])
    for name in ("b", "c"):
        client.put(f"/tags/{name}/follow", headers=person.headers)
    assert client.delete("/users/me", headers=person.headers).status_code == 204
    assert counts(connection) == {"a": (0, 0), "b": (0, 0), "c": (0, 0)}
    assert rows(connection, "SELECT tag_id FROM tag_follows") == rows(connection, "SELECT tag_id FROM post_tags") == []
