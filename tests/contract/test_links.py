"""`Link` and `Location`: short, relative to the address of the request, and made of known parameters only."""

from collections.abc import Callable
from urllib.parse import parse_qs, quote

import httpx2
import pytest
from sqlalchemy import Connection
from starlette.testclient import TestClient

from app.api import pagination
from app.api.pagination import MAX_LINK_BYTES
from app.schemas import cursor as cursors
from tests.contract.answers import assert_refused
from tests.fixtures import Person, linked, located

MakePost = Callable[..., int]
WORDS = "字" * 333
# As long as a search may be, in bytes of a cursor.
MAX_SEARCHES = {
    "Chinese": WORDS,
    "Latin": "é" * 500,
    "quotes": '"' * 500,
    "control characters": "needle " + "\x01" * 165,
    "emoji": "😀" * 250,
}


@pytest.fixture
def posts(make_post: MakePost, person: Person) -> list[int]:
    """Seven posts, the oldest first, which every search of `MAX_SEARCHES` with words finds."""
    text = " ".join(["needle", *MAX_SEARCHES.values()]).replace("\x01", " ")
    return [make_post(person, content=text) for _ in range(7)]


def cursor_of(response: httpx2.Response, relation: str = "next") -> str:
    link = linked(response, relation)
    assert link is not None
    return parse_qs(link.partition("?")[2])["cursor"][0]


@pytest.mark.parametrize("name", MAX_SEARCHES)
@pytest.mark.parametrize("sort", ["new", "old", "top", "hot"])
def test_a_link_stays_below_2_kb_for_any_search(
    client: TestClient, person: Person, posts: list[int], sort: str, name: str
) -> None:
    parameters: dict[str, str | int] = {
        "search": MAX_SEARCHES[name], "sort": sort, "limit": 100, "owner_id": person.id, "published": True,
        "created_after": "2000-01-01T00:00:00.123456+05:00", "created_before": "2100-01-01T00:00:00.123456+05:00",
    }  # fmt: skip
    whole = client.get("/posts", params=parameters, headers=person.headers)
    response = client.get("/posts", params=parameters | {"limit": 2}, headers=person.headers)
    if not whole.json():  # A search for quotes finds nothing.
        assert "Link" not in response.headers
        return
    met = []
    while True:
        assert response.status_code == 200
        assert len(response.headers.get("Link", "")) <= MAX_LINK_BYTES
        met += response.json()
        following = linked(response)
        if following is None:
            break
        assert "search" not in following
        response = client.get(following, headers=person.headers)

    assert met == whole.json()
    assert len(met) == len(posts)


def test_where_both_links_do_not_fit_the_one_to_the_next_page_stays() -> None:
    both = pagination.link_header("limit=1", next="n" * 900, prev="p" * 900)
    one = pagination.link_header("limit=1", next="n" * 1100, prev="p" * 1100)

    assert both == f'<?limit=1&cursor={"n" * 900}>; rel="next", <?limit=1&cursor={"p" * 900}>; rel="prev"'
    assert one == f'<?limit=1&cursor={"n" * 1100}>; rel="next"'
    assert pagination.link_header("limit=1") is None


def test_a_cursor_keeps_the_search_which_may_be_repeated_and_not_be_another(
    client: TestClient, person: Person, posts: list[int], make_post: MakePost
) -> None:
    make_post(person, content="hay")
    first = client.get("/posts?search=needle&limit=2&sort=old", headers=person.headers)
    cursor = cursor_of(first)

    def following(**parameters: str) -> httpx2.Response:
        return client.get("/posts", params={"sort": "old", "cursor": cursor, **parameters}, headers=person.headers)

    for same in ({}, {"search": ""}, {"search": "needle"}):
        assert [item["Post"]["id"] for item in following(**same).json()] == posts[2:]
    assert_refused(following(search="hay"), 422, "malformed_cursor")
    assert_refused(following(search="needle "), 422, "malformed_cursor")


def test_a_cursor_of_the_previous_release_continues_with_its_search(
    client: TestClient, person: Person, posts: list[int], make_post: MakePost
) -> None:
    make_post(person, content="hay")
    first = client.get("/posts?search=needle&limit=2&sort=top", headers=person.headers)
    order, is_backward, value, post_id, _, words = cursors.verify(cursor_of(first))
    assert words == "needle"
    old = cursors.sign([order, is_backward, value, post_id, "1000:1000:"])

    response = client.get("/posts", params={"sort": "top", "cursor": old, "search": "needle"}, headers=person.headers)

    assert [item["Post"]["id"] for item in response.json()] == posts[-3::-1]


@pytest.mark.parametrize(
    "hostile",
    ["x=%0d%0aSet-Cookie:%20a=b", 'x=>;rel="next",<https://evil.example>', "%0d%0aX:y=1", "limit=1&limit=1", "cursor="],
)
@pytest.mark.usefixtures("posts")
def test_unknown_parameters_are_not_in_a_link(client: TestClient, person: Person, hostile: str) -> None:
    response = client.get(f"/posts?limit=1&sort=new&{hostile}", headers=person.headers)

    assert response.status_code == 200
    assert response.headers["Link"] == f'<?limit=1&sort=new&cursor={cursor_of(response)}>; rel="next"'
    assert "Set-Cookie" not in response.headers


LISTS = ["/posts", "/users/me/votes", "/users", "/sessions", "/api-keys", "/users/me/security-events"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", LISTS)
def test_a_link_keeps_the_prefix_of_the_request(
    client: TestClient, admin: Person, posts: list[int], connection: Connection, path: str, slash: str, prefix: str
) -> None:
    for number in range(3):
        assert client.put(f"/posts/{posts[number]}/vote", headers=admin.headers).status_code == 200
        new = {"name": f"key {number}", "scopes": ["read"]}
        assert client.post("/api-keys", json=new, headers=admin.headers).status_code == 201
        connection.exec_driver_sql(
            f"INSERT INTO sessions (user_id, expires_at) VALUES ({admin.id}, now() + interval '1 day')"
        )
    address = f"{prefix}{path}{slash}"
    first = client.get(f"{address}?limit=1&x={quote('字')}", headers=admin.headers)
    link = first.links["next"]["url"]

    # As a client has it that came through a proxy which took a prefix of its own away.
    behind = httpx2.URL(f"https://site.example/api{address}?limit=1").join(link)
    second = client.get(str(linked(first)), headers=admin.headers)

    assert behind.path == f"/api{address}"
    assert link.startswith("?limit=1&cursor=")
    assert (first.status_code, second.status_code) == (200, 200)
    assert len(second.json()) == 1
    assert second.json() != first.json()


CREATED = {
    "/posts": {"title": "t", "content": "c"},
    "/users": {"email": "new@example.com", "password": "correct horse battery"},
    "/api-keys": {"name": "n", "scopes": ["read"]},
}


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", CREATED)
def test_a_location_keeps_the_prefix_of_the_request(
    client: TestClient, person: Person, path: str, slash: str, prefix: str
) -> None:
    response = client.post(f"{prefix}{path}{slash}", json=CREATED[path], headers=person.headers)

    made = response.json()["id"]
    assert response.status_code == 201
    behind = httpx2.URL(f"https://site.example/api{prefix}{path}{slash}").join(response.headers["Location"])
    assert behind.path == f"/api{prefix}{path}/{made}"
    assert client.get(located(response), headers=person.headers).json()


@pytest.mark.parametrize("path", CREATED)
def test_a_location_that_was_kept_fits_the_address_of_the_request_that_is_sent_again(
    client: TestClient, person: Person, path: str, connection: Connection
) -> None:
    headers = person.headers | {"Idempotency-Key": "once"}
    made = client.post(path, json=CREATED[path], headers=headers).json()["id"]

    def again(address: str) -> str:
        response = client.post(address, json=CREATED[path], headers=headers)
        assert response.headers["Idempotency-Replayed"] == "true"
        return located(response)

    assert again(f"{path}/") == f"{path}/{made}"
    assert again(f"/v1{path}") == f"/v1{path}/{made}"
    # As the release before kept it.
    connection.exec_driver_sql(f"UPDATE idempotency_keys SET location = '/v1{path}/{made}'")
    assert again(path) == f"{path}/{made}"
