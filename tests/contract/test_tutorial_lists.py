"""With `TUTORIAL_DEFAULTS`, lists and votes take the parameters that the tutorial takes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import pagination
from app.config import get_settings
from app.services.feed import search
from tests.contract.conftest import Rows
from tests.fixtures import Person, linked

TITLES = ["tallest skyscrapers", "scrap metal", "first title", "100% wool", "a_b", "Ünïcode — ok?", "plain"]
# What the tutorial's `LIKE '%…%'` finds, without its wildcards.
SUBSTRINGS = ["scrap", "skyscrapers", "est sky", "t s", "ers", "s", "t", "rst tit", "0% w", "%", "_", "ïc", "— o", "?",
              " ", "tallest skyscrapers", "lain", "pl", "n", "l", "-", '"', "or", "first title "]  # fmt: skip


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(get_settings(), "tutorial_defaults", True)
    pagination._remembered_query.cache_clear()
    yield
    pagination._remembered_query.cache_clear()


def listed(client: TestClient, person: Person, **parameters: Any) -> list[int]:
    response = client.get("/posts", params=parameters, headers=person.headers)
    assert response.status_code == 200, response.text
    return [item["Post"]["id"] for item in response.json()]


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize("words", SUBSTRINGS)
def test_search_finds_every_part_of_a_title(
    client: TestClient, person: Person, make_post: Callable[..., int], words: str
) -> None:
    ids = {make_post(person, title=title, content="x"): title for title in TITLES}
    draft = make_post(person, title="draft of scrap % _ ? tallest skyscrapers", content="x", published=False)

    found = listed(client, person, search=words, limit=100)

    assert {post for post, title in ids.items() if words in title} <= set(found)
    assert draft not in found
    assert len(found) == len(set(found))


def test_without_the_setting_whole_words_hide_parts(
    client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    make_post(person, title="tallest skyscrapers", content="x")
    whole = make_post(person, title="scrap metal", content="x")

    assert listed(client, person, search="scrap") == [whole]
    assert listed(client, person, search="t sky") == []


@pytest.mark.usefixtures("tutorial")
def test_search_finds_parts_of_words_among_many_posts_that_have_them(
    client: TestClient,
    person: Person,
    make_post: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past `MAX_MATCHES` the list is walked."""
    monkeypatch.setattr(search, "MAX_MATCHES", 3)
    ids = [make_post(person, title=title, content="x") for title in ["skyscraper", "scrap"] * 4]
    make_post(person, title="other", content="x")

    found = listed(client, person, search="scrap", limit=3, sort="old")
    response = client.get("/posts?search=scrap&limit=3&sort=old", headers=person.headers)

    assert found == ids[:3]
    following = linked(response)
    assert following is not None
    assert [item["Post"]["id"] for item in client.get(following, headers=person.headers).json()] == ids[3:6]


@pytest.mark.usefixtures("tutorial")
def test_pages_of_a_search_follow_each_other(client: TestClient, person: Person, make_post: Callable[..., int]) -> None:
    ids = [make_post(person, title=f"tallest skyscraper {number}", content="x") for number in range(5)]
    response = client.get("/posts", params={"search": "est sky", "limit": 2, "sort": "old"}, headers=person.headers)
    walked = [item["Post"]["id"] for item in response.json()]
    while (following := linked(response)) is not None:
        response = client.get(following, headers=person.headers)
        walked += [item["Post"]["id"] for item in response.json()]

    assert walked == ids
    assert listed(client, person, search="est sky", limit=2, skip=3, sort="old") == ids[3:]


@pytest.mark.usefixtures("tutorial")
def test_limits_and_skips_of_the_tutorial_are_answered(
    client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    ids = [make_post(person) for _ in range(3)]

    assert listed(client, person, limit=0) == []
    assert listed(client, person, limit=0, search="title", skip=1) == []
    assert listed(client, person, limit=1000, sort="old") == ids
    for skip in (3, 10_000, 10_001, 20_000, 10**30):
        response = client.get(f"/posts?skip={skip}", headers=person.headers)
        assert (response.status_code, response.json(), response.links) == (200, [], {})
        assert listed(client, person, skip=skip, search="title", sort="top") == []


@pytest.mark.usefixtures("tutorial")
def test_skip_past_the_maximum_is_refused_where_posts_are_there(
    client: TestClient, person: Person, make_post: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty page would look like the end of the list."""
    from app.routers import post

    monkeypatch.setattr(post, "MAX_SKIP", 2)
    ids = [make_post(person) for _ in range(3)]

    assert listed(client, person, skip=2, sort="old") == ids[2:]
    refused = client.get("/posts?skip=3", headers=person.headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert refused.json()["detail"][0]["loc"] == ["query", "skip"]
    first = client.get("/posts?limit=1&sort=old", headers=person.headers)
    following = linked(first)
    # A cursor replaces it.
    assert client.get(f"{following}&skip=3", headers=person.headers).json()[0]["Post"]["id"] == ids[1]


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize("query", ["limit=-1", "skip=-1", "limit=x", "skip=1.5", f"limit=-{10**30}"])
def test_what_the_tutorial_fails_on_is_refused(client: TestClient, person: Person, query: str) -> None:
    assert client.get(f"/posts?{query}", headers=person.headers).status_code == 422


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize("direction", [-1, 0, "-1", -7, -(10**30), False, -1.0])
@pytest.mark.parametrize("name", ["dir", "vote_dir"])
def test_direction_below_one_takes_the_vote_back(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows, name: str, direction: object
) -> None:
    post = make_post(person)
    cast = client.post("/vote", json={"post_id": post, name: 1}, headers=person.headers)
    again = client.post("/vote", json={"post_id": post, name: 1}, headers=person.headers)
    assert (cast.status_code, cast.json()["message"]) == (201, "successfully added vote")
    assert (again.status_code, again.json()["detail"]) == (409, f"user {person.id} has already voted on post {post}")

    back = client.post("/vote", json={"post_id": post, name: direction}, headers=person.headers)
    twice = client.post("/vote", json={"post_id": post, name: direction}, headers=person.headers)

    assert (back.status_code, back.json()["message"]) == (201, "successfully deleted vote")
    assert (twice.status_code, twice.json()["detail"]) == (404, "Vote does not exist")
    assert rows("SELECT 1 FROM votes") == []


@pytest.mark.parametrize("direction", [2, "2", 10**30])
def test_direction_above_one_is_refused_with_and_without_the_setting(
    client: TestClient,
    person: Person,
    make_post: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    direction: object,
) -> None:
    ballot = {"post_id": make_post(person), "dir": direction}
    for is_on in (False, True):
        monkeypatch.setattr(get_settings(), "tutorial_defaults", is_on)
        assert client.post("/vote", json=ballot, headers=person.headers).status_code == 422
