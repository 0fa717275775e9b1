"""Lists: their order, bounds, filters and search; ETags; links and cursors."""

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.responses import Response
from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.testclient import TestClient

from app.api import batch_queues
from app.api.pagination import respond_with_page
from app.config import get_settings
from app.database.sessions import at_once
from app.schemas import cursor as cursors
from app.security import access_tokens
from app.services import feed
from tests.fixtures import Person, linked
from tests.services.walking import read

MakePost = Callable[..., int]
MakePerson = Callable[..., Person]
List = Callable[..., list[int]]


@pytest.fixture
def listed(client: TestClient, person: Person) -> List:
    """The ids that `GET /posts` shows: `listed(sort="top")`."""

    def listed(by: Person = person, **parameters: Any) -> list[int]:
        response = client.get("/posts", params={"limit": 100, **parameters}, headers=by.headers)
        assert response.status_code == 200, response.text
        return [item["Post"]["id"] for item in response.json()]

    return listed


# Order


@pytest.fixture
def five_posts(make_post: MakePost, make_person: MakePerson, person: Person, cast_votes: Any) -> list[int]:
    """Posts of three days, two with the same time, with 0, 2, 2, 1 and 0 votes."""
    days = ["2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03", "2026-01-03"]
    posts = [make_post(person, created_at=f"{day} 00:00:00+00") for day in days]
    voters = [make_person(), make_person()]
    for post_id, number in zip(posts, (0, 2, 2, 1, 0), strict=True):
        cast_votes(post_id, voters[:number])
    return posts


@pytest.mark.parametrize(
    ("sort", "places"),
    [("new", [4, 3, 2, 1, 0]), ("old", [0, 1, 2, 3, 4]), ("top", [2, 1, 3, 4, 0]), ("hot", [3, 4, 2, 1, 0])],
)
def test_ties_are_broken_by_id(listed: List, five_posts: list[int], sort: str, places: list[int]) -> None:
    assert listed(sort=sort) == [five_posts[place] for place in places]


def test_votes_outweigh_age_in_hot_where_they_are_many(
    listed: List, make_post: MakePost, make_person: MakePerson, person: Person, cast_votes: Any
) -> None:
    older = make_post(person, created_at="2026-01-01 00:00:00+00")
    newer = make_post(person, created_at="2026-01-01 01:00:00+00")
    cast_votes(older, [make_person()])
    # log10(2) is 13 546 seconds, an hour is 3 600.
    assert listed(sort="hot") == [older, newer]


@pytest.mark.parametrize(
    "wrong",
    ["limit=0", "limit=-1", "limit=x", "limit=1.5", "skip=-1", "skip=10001", "skip=99999999999999999999",
     "sort=best", "published=perhaps", "created_after=yesterday", "owner_id=x", "search=" + "x" * 501,
     "search=" + "東" * 334],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(client: TestClient, person: Person, wrong: str) -> None:
    assert client.get(f"/posts?{wrong}", headers=person.headers).status_code == 422


def test_limit_and_skip_cut_the_list(listed: List, five_posts: list[int]) -> None:
    assert listed(sort="old", limit=2) == five_posts[:2]
    assert listed(sort="old", skip=3) == five_posts[3:]
    assert listed(sort="old", limit=1, skip=4) == five_posts[4:]
    assert listed(skip=10_000) == []


# Filters


def test_owner_filter_shows_their_posts_only(listed: List, make_post: MakePost, make_person: MakePerson) -> None:
    ada, bob = make_person(), make_person()
    post_id = make_post(ada)
    make_post(bob)
    assert listed(owner_id=ada.id) == [post_id]
    for unknown_id in (0, -1, 2**63, 10**30):
        assert listed(owner_id=unknown_id) == []


def test_times_bound_the_list_on_both_sides(listed: List, five_posts: list[int]) -> None:
    second = "2026-01-02T00:00:00"
    assert listed(sort="old", created_after=f"{second}Z") == five_posts[3:]
    assert listed(sort="old", created_before=f"{second}Z") == five_posts[:1]
    assert listed(sort="old", created_after=second) == five_posts[3:]  # Without an offset: UTC.
    assert (
        listed(sort="old", created_after="2026-01-02T01:59:59+02:00", created_before=second + ".000001Z")
        == (five_posts[1:3])
    )
    assert listed(created_after="9999-12-31T23:59:59Z") == []
    assert len(listed(created_after="0001-01-01T00:00:00Z")) == 5


def test_drafts_are_listed_for_their_owner_and_moderators_only(
    listed: List, make_post: MakePost, make_person: MakePerson
) -> None:
    ada, bob, moderator = make_person(), make_person(), make_person(role="moderator")
    public, draft = make_post(ada), make_post(ada, published=False)
    for sort in ("new", "old", "top", "hot"):
        assert listed(ada, sort=sort) == [public]
        assert listed(ada, sort=sort, published=True) == [public]
        assert listed(ada, sort=sort, published=False) == [draft]
        assert listed(ada, sort=sort, published=False, owner_id=bob.id) == []
        assert listed(bob, sort=sort, published=False) == []
        assert listed(bob, sort=sort, published=False, owner_id=ada.id) == []
        assert listed(moderator, sort=sort, published=False, owner_id=ada.id) == [draft]
        assert listed(moderator, sort=sort) == [public]


# Search

TEXTS = {
    "cats": ("Cats and dogs", "Living together"),
    "catalogue": ("A catalogue", "of things that dogs like"),
    "quick": ("The quick brown fox", "jumps over the lazy dog"),
    "brown": ("Brown is quick", "to fade, says the fox"),
    "hyphen": ("A well-known fact", "about state-of-the-art things"),
    "percent": ("100% sure_thing", "with underscore_here"),
    "french": ("Ça coûte cher", "à Noël 東京"),
}


@pytest.fixture
def found(listed: List, make_post: MakePost, person: Person) -> Callable[[str], set[str]]:
    """The names of those of `TEXTS` that a search finds."""
    names = {make_post(person, title=title, content=content): name for name, (title, content) in TEXTS.items()}
    return lambda search: {names[post_id] for post_id in listed(search=search)}


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("cats", {"cats"}),
        ("CATS", {"cats"}),
        ("dogs", {"cats", "catalogue"}),
        ("dogs cats", {"cats"}),
        ("cat", {"cats", "catalogue"}),  # The last word may be unfinished,
        ("living dogs", {"cats"}),  # the others are whole,
        ("liv dogs", {"cats"}),  # unless no post has them whole,
        ("th dogs", set()),  # and they are long enough,
        ("dogs cat", {"cats", "catalogue"}),
        ("dogs -cat", {"cats", "catalogue"}),  # and so is one that is excluded,
        ("dogs -cats", {"catalogue"}),
        ('"quick brown"', {"quick"}),
        ('"quick bro"', set()),  # or quoted to its end.
        ('"quick bro', {"quick"}),
        ('"brown quick"', set()),
        ("quick brown", {"quick", "brown"}),
        ('fox -"quick brown"', {"brown"}),
        ("cats or fox", {"cats", "quick", "brown"}),
        ("-dogs fox", {"quick", "brown"}),
        ("well-known", {"hyphen"}),
        ("known", {"hyphen"}),
        ("state-of-the-art", {"hyphen"}),
        ("-well-known dogs", {"cats", "catalogue"}),
        ("things -well-known", {"catalogue"}),
        ("sure_thing", {"percent"}),
        ("100%", {"percent"}),
        ("%", set()),
        ("_", set()),
        ("c_ts", set()),
        ("c%s", set()),
        ("ça", {"french"}),
        ("NOËL", {"french"}),
        ("東", {"french"}),
        ("nothing", set()),
        ("dogs & cats", {"cats"}),
        ("cats | nothing", set()),
        ("!dogs cats", {"cats"}),
        ("(cats)", {"cats"}),
        ("cats:*", {"cats"}),
        ("ca:*", {"cats", "catalogue"}),
        ("cats <-> dogs", {"cats"}),
        ("cats'", {"cats"}),
        ("it's", set()),
        (r"cats\ ", {"cats"}),
    ],
)
def test_search_finds(found: Callable[[str], set[str]], search: str, names: set[str]) -> None:
    assert found(search) == names


@pytest.mark.parametrize(
    "search",
    ["&", "|", "!", "(", ")", ":", "*", "<", ">", "'", '"', "''", '""', "\\", "-", "--", "- -",
     "& | ! ( ) : * < > ' \"",
     "'a", "a'b'c", "a\\'", "\\'a", "foo/b'ar", "http://a.b/c'd?e='f'", "-'", "-\"", '"-a', "-foo-bar", "--a-b--", "or",
     "a or", "or or", "-or", "<->", "!!", "a:*b", "a:*", "<b>x</b>", "%s", "%(search)s", "$1", "\\1", "\\1\\2", "' \\1",
     "1e309", "-1", "- 1", "a@b.c", "/a/b/c'", "\u202e", "\ufeff", "😀", "é" * 500, "東" * 333, "a " * 250, "-a" * 250,
     '"' * 500, "'" * 500, "é-" * 250],
)  # fmt: skip
def test_no_search_is_an_error(client: TestClient, person: Person, make_post: MakePost, search: str) -> None:
    make_post(person)
    for sort in ("new", "top"):
        response = client.get("/posts", params={"search": search, "sort": sort}, headers=person.headers)
        assert response.status_code == 200, response.text


def test_search_for_punctuation_alone_finds_nothing_and_for_nothing_everything(
    found: Callable[[str], set[str]],
) -> None:
    assert found("!!! ... ???") == set()
    assert found("") == set(TEXTS)


@pytest.mark.parametrize("search", ["%00", "a%00b", "cats%00"])
def test_search_for_nul_is_refused(client: TestClient, person: Person, search: str) -> None:
    assert client.get(f"/posts?search={search}", headers=person.headers).status_code == 422


def test_search_survives_a_walk(client: TestClient, person: Person, make_post: MakePost) -> None:
    posts = [make_post(person, title=f"needle {n % 2}") for n in range(7)]
    make_post(person, title="hay")
    for sort in ("new", "old", "top", "hot"):
        met: list[int] = []
        url: str | None = f"/posts?search=needle&limit=2&sort={sort}"
        while url:
            response = client.get(url, headers=person.headers)
            met += [item["Post"]["id"] for item in response.json()]
            url = linked(response)
        assert sorted(met) == posts


# What is personal


def test_pages_are_freed_without_the_garbage_collector(make_post: MakePost, make_person: MakePerson) -> None:
    person = make_person()
    make_post(person)
    question = feed.PageRequest(access_tokens.verify(person.token), feed.PageQuery("old", 10))
    gc.disable()
    try:
        with at_once() as connection:
            (reading,) = feed.read(connection, [question])
        assert isinstance(reading, feed.PageResponse)
        assert reading.json
        page = weakref.ref(reading.page)
        del reading
        assert page() is None
    finally:
        gc.enable()


@pytest.mark.skipif(get_settings().max_batch < 6, reason="MAX_BATCH is set too low")
def test_readers_of_one_batch_share_the_page_but_not_their_votes(
    make_post: MakePost, make_person: MakePerson, cast_votes: Any
) -> None:
    people = [make_person() for _ in range(6)]
    posts = [make_post(people[0]) for _ in range(3)]
    for number, post_id in enumerate(posts):
        cast_votes(post_id, [person for place, person in enumerate(people) if place >> number & 1])
    questions = [feed.PageRequest(access_tokens.verify(person.token), feed.PageQuery("old", 10)) for person in people]

    async def ask() -> list[feed.PageResponse]:
        answers = asyncio.gather(*(batch_queues.read_page(question) for question in questions))
        return await asyncio.wait_for(answers, 10)

    readings = asyncio.run(ask())
    assert len({id(reading.page) for reading in readings}) == 1
    for place, reading in enumerate(readings):
        assert reading.overlay.voted == tuple(bool(place >> number & 1) for number in range(3))
        shown = json.loads(b"[" + reading.json + b"]")
        assert [item["voted"] for item in shown] == list(reading.overlay.voted)
    assert len({reading.etag for reading in readings}) == len(people)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE posts SET content = 'by hand'",
        "UPDATE posts SET title = 'by hand'",
        "UPDATE posts SET updated_at = now() + interval '1 hour'",
        "UPDATE posts SET created_at = now() - interval '1 hour'",
        "UPDATE users SET username = 'another'",
        "INSERT INTO votes (post_id, user_id) SELECT posts.id, users.id FROM posts, users",
    ],
)
def test_a_cached_page_is_not_shown_after_a_change(
    client: TestClient, connection: Connection, person: Person, make_post: MakePost, change: str
) -> None:
    make_post(person)

    def listed() -> Any:
        return client.get("/posts", headers=person.headers).json()

    before = listed()
    assert listed() == before
    connection.execute(text(change))
    after = listed()
    assert after != before
    assert client.get(f"/posts/{before[0]['Post']['id']}", headers=person.headers).json() == after[0]


def test_a_signed_out_caller_gets_nothing_from_the_batch(
    connection: Connection, make_post: MakePost, make_person: MakePerson
) -> None:
    ada, bob = make_person(), make_person()
    make_post(ada)
    connection.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": bob.session_id})
    questions = [
        feed.PageRequest(access_tokens.verify(person.token), feed.PageQuery("new", 10)) for person in (bob, ada)
    ]
    refused, answered = feed.read(connection, questions)
    assert type(refused).__name__ == "NotAuthenticated"
    assert isinstance(answered, feed.PageResponse)


# ETag


@pytest.fixture
def etag(client: TestClient, person: Person) -> Callable[..., str]:
    def etag(path: str = "/posts?limit=2&sort=old", by: Person = person) -> str:
        response = client.get(path, headers=by.headers)
        assert response.status_code == 200
        return str(response.headers["etag"])

    return etag


def _changes(person: Person, other: Person) -> Iterator[tuple[str, str, dict[str, Any]]]:
    ids = {"person": person.id, "other": other.id}
    first = "(SELECT min(id) FROM posts)"
    yield "a vote of another user", f"INSERT INTO votes (post_id, user_id) VALUES ({first}, :other)", ids
    yield "that vote taken back", "DELETE FROM votes WHERE user_id = :other", ids
    yield "the caller's vote", f"INSERT INTO votes (post_id, user_id) VALUES ({first}, :person)", ids
    yield "owner renamed", "UPDATE users SET username = 'renamed' WHERE id = :person", ids
    yield "post deleted", f"DELETE FROM posts WHERE id = {first}", ids


def test_etag_of_a_page_changes_when_the_page_does(
    client: TestClient, connection: Connection, person: Person, make_person: MakePerson, make_post: MakePost, etag: Any
) -> None:
    posts = [make_post(person) for _ in range(4)]
    seen = [etag()]
    for what, statement, parameters in _changes(person, make_person()):
        connection.execute(text(statement), {name: parameters[name] for name in parameters if f":{name}" in statement})
        seen.append(etag())
        assert seen[-1] not in seen[:-1] or what == "that vote taken back", what
    assert seen[2] == seen[0]  # As before the vote.
    response = client.patch(f"/posts/{posts[1]}", json={"title": "edited"}, headers=person.headers)
    assert response.status_code == 200
    assert etag() not in seen
    before = etag("/posts?limit=2&sort=new")
    make_post(person)
    assert etag("/posts?limit=2&sort=new") != before


def test_etag_of_a_page_stays_when_something_else_changes(
    connection: Connection, person: Person, make_person: MakePerson, make_post: MakePost, etag: Any, cast_votes: Any
) -> None:
    shown, _, later = [make_post(person) for _ in range(3)]
    other = make_person()
    for path in ("/posts?limit=2&sort=old", f"/posts/{shown}"):
        before = etag(path)
        make_post(other)
        cast_votes(later, [other])
        connection.execute(text("UPDATE posts SET title = 'x', version = version + 1 WHERE id = :id"), {"id": later})
        connection.execute(
            text("UPDATE users SET username = :name WHERE id = :id"), {"name": f"a{later}", "id": other.id}
        )
        connection.execute(text("UPDATE users SET password_hash = 'y' WHERE id = :id"), {"id": other.id})
        assert etag(path) == before
        connection.execute(text("DELETE FROM votes"))


@pytest.mark.parametrize("sort", ["new", "top", "hot"])
def test_client_that_has_the_page_gets_304_without_a_body(
    client: TestClient, person: Person, make_post: MakePost, sort: str
) -> None:
    make_post(person)
    make_post(person)
    url = f"/posts?limit=1&sort={sort}"
    first = client.get(url, headers=person.headers)
    for value in (first.headers["etag"], "*", f'"other", {first.headers["etag"]}', f"W/{first.headers['etag']}"):
        response = client.get(url, headers={**person.headers, "If-None-Match": value})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == first.headers["etag"]
        assert "next" in response.links
    assert client.get(url, headers={**person.headers, "If-None-Match": '"other"'}).status_code == 200


def test_page_that_the_client_has_is_not_serialized(
    connection: Connection, person: Person, make_post: MakePost
) -> None:
    make_post(person)
    query = feed.PageQuery("new", 10)
    etag = read(connection, person, query).etag

    def respond(reading: feed.PageResponse, if_none_match: str) -> Response:
        headers = [(b"if-none-match", f'"{if_none_match}"'.encode())]
        scope = {"type": "http", "path": "/posts", "query_string": b"", "headers": headers}
        return respond_with_page(Request(scope), reading, "")

    had, not_had = read(connection, person, query), read(connection, person, query)
    assert respond(had, etag).status_code == 304
    assert "parts" not in vars(had.page)  # Computed at the first use, and stored.
    assert respond(not_had, "other").status_code == 200
    assert "parts" in vars(not_had.page)


# Links and cursors


@pytest.mark.parametrize("sort", ["new", "old", "top", "hot"])
def test_links_walk_forwards_and_back_through_the_same_pages(
    client: TestClient, person: Person, five_posts: list[int], listed: List, sort: str
) -> None:
    def follow(url: str | None, relation: str) -> Iterator[Any]:
        while url:
            response = client.get(url, headers=person.headers)
            yield [item["Post"]["id"] for item in response.json()], response
            url = linked(response, relation)

    forwards = list(follow(f"/posts?sort={sort}&limit=2", "next"))
    assert [ids for ids, _ in forwards] == [listed(sort=sort)[n : n + 2] for n in (0, 2, 4)]
    assert "prev" not in forwards[0][1].links
    assert "next" not in forwards[-1][1].links
    backwards = list(follow(linked(forwards[-1][1], "prev"), "prev"))
    assert [ids for ids, _ in backwards] == [ids for ids, _ in forwards[-2::-1]]
    assert "prev" not in backwards[-1][1].links
    assert len(five_posts) == 5


def test_links_keep_the_filters_and_leave_skip_behind(client: TestClient, person: Person, make_post: MakePost) -> None:
    posts = [make_post(person, title="needle") for _ in range(6)]
    url = f"/posts?sort=old&search=needle&owner_id={person.id}&limit=2&skip=1"
    first = client.get(url, headers=person.headers)
    following = linked(first)
    assert following is not None
    assert "skip" not in following
    for further in (following, f"{following}&skip=2"):
        shown = [item["Post"]["id"] for item in client.get(further, headers=person.headers).json()]
        assert shown == posts[3:5]
    before = client.get(str(linked(first, "prev")), headers=person.headers).json()
    assert [item["Post"]["id"] for item in before] == posts[:1]


def test_cursor_of_another_list_is_refused(client: TestClient, person: Person, make_post: MakePost) -> None:
    for _ in range(3):
        make_post(person)
    sorts = ("new", "old", "top", "hot")
    for sort in sorts:
        links = client.get(f"/posts?limit=1&sort={sort}", headers=person.headers).links
        cursor = links["next"]["url"].partition("cursor=")[2]
        for other in sorts:
            response = client.get(f"/posts?sort={other}&cursor={cursor}", headers=person.headers)
            assert response.status_code == (200 if other == sort else 422)
        response = client.get(f"/users/me/votes?cursor={cursor}", headers=person.headers)
        assert (response.status_code, response.json()["code"]) == (422, "malformed_cursor")


def test_cursor_that_was_changed_in_one_letter_is_refused(
    client: TestClient, person: Person, make_post: MakePost
) -> None:
    make_post(person)
    make_post(person)
    links = client.get("/posts?limit=1&sort=top", headers=person.headers).links
    cursor = links["next"]["url"].partition("cursor=")[2]
    assert feed.position_of(cursor, "top").post_id > 0
    for place, letter in enumerate(cursor):
        for other in {"A", "B", "z", "-", "", "=", "~"} - {letter}:
            changed = cursor[:place] + other + cursor[place + 1 :]
            if changed != cursor:
                with pytest.raises(Exception, match="cursor"):
                    feed.position_of(changed, "top")
    for wrong in (cursor + "A", cursor + "=", cursor + "!", "x", "-", "%FF", "é", "A" * 4000, cursor[:-1], "null"):
        response = client.get("/posts", params={"cursor": wrong, "sort": "top"}, headers=person.headers)
        assert (response.status_code, response.json()["code"]) == (422, "malformed_cursor")
    assert client.get("/posts", params={"cursor": "A" * 4001}, headers=person.headers).status_code == 422


@pytest.mark.parametrize("values", [[], ["new"], ["users", 1], ["new", False, "2026-01-01", "1", None], [None] * 9])
def test_sealed_values_that_are_no_position_are_refused(client: TestClient, person: Person, values: Any) -> None:
    cursor = cursors.sign(values)
    response = client.get("/posts", params={"cursor": cursor, "sort": "new"}, headers=person.headers)
    assert (response.status_code, response.json()["code"]) == (422, "malformed_cursor")


def test_own_posts_show_the_own_address_for_any_text(
    client: TestClient, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    ada, bob = make_person(username="ada"), make_person(username="bob")
    placeholder = "ada@users.noreply.example.com"
    tricky = f'"email":"{placeholder}" \\"email\\":"{placeholder}"'
    make_post(ada, title=tricky[:300], content=tricky)

    def post(reader: Person) -> dict[str, Any]:
        shown: dict[str, Any] = client.get("/posts", headers=reader.headers).json()[0]["Post"]
        return shown

    assert [post(reader)["owner"]["email"] for reader in (ada, bob)] == [ada.email, placeholder]
    assert [(post(reader)["title"], post(reader)["content"]) for reader in (ada, bob)] == [(tricky[:300], tricky)] * 2
