"""`ETag`, `If-None-Match` and `If-Match` of single posts: no needless transfer, no lost update."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

CHANGE = {"title": "changed"}


@pytest.fixture
def post_id(person: Person, make_post: Callable[..., int]) -> int:
    return make_post(person, title="as it was")


def etag(client: TestClient, post_id: int, person: Person) -> str:
    return str(client.get(f"/posts/{post_id}", headers=person.headers).headers["ETag"])


def test_a_post_that_has_not_changed_is_not_sent_again(client: TestClient, person: Person, post_id: int) -> None:
    tag = etag(client, post_id, person)
    for seen in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = client.get(f"/posts/{post_id}", headers=person.headers | {"If-None-Match": seen})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == tag
    assert client.get(f"/posts/{post_id}", headers=person.headers | {"If-None-Match": '"other"'}).status_code == 200


def test_a_post_that_has_changed_is_sent_again(client: TestClient, person: Person, other: Person, post_id: int) -> None:
    changes: list[Callable[[], object]] = [
        lambda: client.patch(f"/posts/{post_id}", json=CHANGE, headers=person.headers),
        lambda: client.put(f"/posts/{post_id}/vote", headers=other.headers),
        lambda: client.put(f"/posts/{post_id}/vote", headers=person.headers),
        lambda: client.delete(f"/posts/{post_id}/vote", headers=other.headers),
        lambda: client.patch("/users/me", json={"username": "renamed"}, headers=person.headers),
    ]
    for change in changes:
        tag = etag(client, post_id, person)
        change()
        response = client.get(f"/posts/{post_id}", headers=person.headers | {"If-None-Match": tag})
        assert response.status_code == 200
        assert response.headers["ETag"] != tag


def test_an_etag_is_the_readers_own(
    client: TestClient, person: Person, other: Person, post_id: int, cast_votes: Callable[..., None]
) -> None:
    cast_votes(post_id, [other])

    assert etag(client, post_id, person) != etag(client, post_id, other)


def test_304_requires_permission_to_read(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    tag = etag(client, post_id, other)
    rows("UPDATE posts SET published = false RETURNING 1")
    assert_refused(
        client.get(f"/posts/{post_id}", headers=other.headers | {"If-None-Match": "*"}), 404, "post_not_found"
    )

    rows("DELETE FROM sessions WHERE user_id = :id RETURNING 1", id=person.id)
    response = client.get(f"/posts/{post_id}", headers=person.headers | {"If-None-Match": tag})
    assert_refused(response, 401, "not_authenticated")


@pytest.mark.parametrize("body", [{}, {"title": None}, {"id": 7}])
def test_an_empty_change_makes_no_new_version(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], rows: Rows, body: Any
) -> None:
    post_id = make_post(person, title="as it was")
    before = rows("SELECT posts::text FROM posts")

    response = client.patch(f"/posts/{post_id}", json=body, headers=person.headers)
    assert (response.status_code, response.headers["ETag"], response.json()["title"]) == (200, '"1"', "as it was")

    for caller, etag, status in ((person, '"2"', 412), (person, '"1"', 200), (other, '"1"', 403)):
        headers = caller.headers | {"If-Match": etag}
        assert client.patch(f"/posts/{post_id}", json=body, headers=headers).status_code == status
    assert client.patch("/posts/0", json=body, headers=person.headers).status_code == 404
    assert rows("SELECT posts::text FROM posts") == before


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_an_unchanged_post_can_be_changed(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows, method: str
) -> None:
    tag = etag(client, post_id, person)
    client.put(f"/posts/{post_id}/vote", headers=other.headers)  # A vote is not an edit.

    response = client.request(
        method, f"/posts/{post_id}", json=_body(method), headers=person.headers | {"If-Match": tag}
    )

    assert response.status_code == (204 if method == "DELETE" else 200)
    assert rows("SELECT title, version FROM posts") == ([] if method == "DELETE" else [("changed", 2)])


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_concurrent_change_is_not_overwritten(
    client: TestClient, person: Person, post_id: int, rows: Rows, method: str
) -> None:
    tag = etag(client, post_id, person)
    client.patch(f"/posts/{post_id}", json={"title": "meanwhile"}, headers=person.headers)

    response = client.request(
        method, f"/posts/{post_id}", json=_body(method), headers=person.headers | {"If-Match": tag}
    )

    assert_refused(response, 412, "precondition_failed")
    assert rows("SELECT title, version FROM posts") == [("meanwhile", 2)]


@pytest.mark.parametrize(
    "if_match",
    [
        "garbage",
        "",
        '"',
        'W/"2"',
        'W/"-1"',
        '"99999999999"',
        '"-1"',
        '"1',
        '""',
        '"\u0661"',
        "2",
        "2-whatever",
        "-1",
        "1-",
        "W/1",
        "1 1",
        "1, 1",
        "\u0661",
        "9" * 5000,
    ],
)
def test_an_if_match_that_fits_no_version_changes_nothing(
    client: TestClient, person: Person, post_id: int, rows: Rows, if_match: str
) -> None:
    headers = {b"Authorization": f"Bearer {person.token}".encode(), b"If-Match": if_match.encode()}

    assert_refused(client.patch(f"/posts/{post_id}", json=CHANGE, headers=headers), 412, "precondition_failed")
    assert rows("SELECT title, version FROM posts") == [("as it was", 1)]


@pytest.mark.parametrize(
    "if_match", ["*", '"1"', "1", " 1 ", "1-whatever", '"7", "1"', '"1-whatever"', 'W/"1-whatever"', 'W/"7", W/"1"']
)
def test_an_if_match_that_names_the_version_lets_the_change_through(
    client: TestClient, person: Person, post_id: int, rows: Rows, if_match: str
) -> None:
    headers = person.headers | {"If-Match": if_match}

    assert client.patch(f"/posts/{post_id}", json=CHANGE, headers=headers).status_code == 200
    assert rows("SELECT title, version FROM posts") == [("changed", 2)]


def test_the_etag_of_a_change_allows_the_next_one_and_no_other(
    client: TestClient, person: Person, post_id: int
) -> None:
    first = client.patch(f"/posts/{post_id}", json=CHANGE, headers=person.headers).headers["ETag"]
    again = {"If-Match": first}

    def change(title: str) -> int:
        return client.patch(f"/posts/{post_id}", json={"title": title}, headers=person.headers | again).status_code

    assert [change("again"), change("and again")] == [200, 412]


def test_the_etag_of_a_new_post_allows_the_first_change_also_where_its_answer_is_replayed(
    client: TestClient, person: Person, rows: Rows
) -> None:
    body, headers = {"title": "as it was", "content": "text"}, person.headers | {"Idempotency-Key": "once"}
    written, replayed = (client.post("/posts", json=body, headers=headers) for _ in range(2))

    assert [answer.headers["ETag"] for answer in (written, replayed)] == ['"1"', '"1"']
    again = person.headers | {"If-Match": written.headers["ETag"]}
    assert [
        client.patch(f"/posts/{written.json()['id']}", json={"title": title}, headers=again).status_code
        for title in ("changed", "changed again")
    ] == [200, 412]
    assert rows("SELECT title, version FROM posts") == [("changed", 2)]


@pytest.mark.parametrize("if_match", [None, '"1"'])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PATCH", {"title": "as it was"}),
        ("PATCH", {"title": "as it was", "content": "text", "published": True}),
        ("PUT", {"title": "as it was", "content": "text"}),
    ],
)
def test_a_change_without_effect_keeps_the_version_and_the_time(
    client: TestClient,
    person: Person,
    make_post: Callable[..., int],
    rows: Rows,
    method: str,
    body: Any,
    if_match: str | None,
) -> None:
    post_id = make_post(person, title="as it was", content="text")
    before, tag = rows("SELECT posts::text FROM posts"), etag(client, post_id, person)
    headers = person.headers | ({"If-Match": if_match} if if_match else {})

    response = client.request(method, f"/posts/{post_id}", json=body, headers=headers)

    assert (response.status_code, response.headers["ETag"]) == (200, '"1"')
    assert response.json()["updated_at"] == response.json()["created_at"]
    assert rows("SELECT posts::text FROM posts") == before
    assert etag(client, post_id, person) == tag


@pytest.mark.parametrize("change", [{"title": "As it was"}, {"content": "text "}, {"published": False}])
def test_a_change_of_one_letter_or_of_the_draft_makes_a_version(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows, change: dict[str, Any]
) -> None:
    post_id = make_post(person, title="as it was", content="text")
    body = {"title": "as it was", "content": "text", "published": True} | change

    assert client.patch(f"/posts/{post_id}", json=body, headers=person.headers).headers["ETag"] == '"2"'
    assert rows("SELECT version, updated_at > created_at FROM posts") == [(2, True)]


def _body(method: str) -> dict[str, str] | None:
    return None if method == "DELETE" else CHANGE | {"content": "text"}
