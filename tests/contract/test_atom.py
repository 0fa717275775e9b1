"""Atom feeds: valid by RFC 4287, of published posts only, and open to feed keys and to nothing else of such a key."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import feedparser
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.api import atom
from app.config import get_settings
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.test_api_keys import OPEN_TO_KEYS
from tests.fixtures import Person

MakePost = Callable[..., int]
NAMESPACE = "{http://www.w3.org/2005/Atom}"
PATHS = ["/posts.atom", "/users/{user_id}/posts.atom", "/tags/moths/posts.atom"]
SITE = "http://testserver"


@pytest.fixture
def feed_key(client: TestClient, person: Person) -> str:
    return make_key(client, person, ["feed"])


def make_key(client: TestClient, person: Person, scopes: list[str]) -> str:
    made = client.post("/api-keys", json={"name": "reader", "scopes": scopes}, headers=person.headers)
    assert (made.status_code, made.json()["scopes"]) == (201, scopes)
    return str(made.json()["key"])


def entries(xml: bytes) -> list[Any]:
    """Return the entries of the feed, after checking what RFC 4287 requires of it (4.1.1 and 4.1.2)."""
    parsed = feedparser.parse(xml)
    assert (parsed.bozo, parsed.version) == (False, "atom10")
    root = ElementTree.fromstring(xml)  # noqa: S314 - our own response.
    assert root.tag == f"{NAMESPACE}feed"
    items = root.findall(f"{NAMESPACE}entry")
    ids = [item.findtext(f"{NAMESPACE}id") for item in items]
    assert len(set(ids)) == len(ids)
    for item in (root, *items):
        for name in ("id", "title", "updated"):
            assert len(item.findall(f"{NAMESPACE}{name}")) == 1
        assert datetime.fromisoformat(item.findtext(f"{NAMESPACE}updated") or "").tzinfo is not None
        links = [(link.get("rel"), link.get("href", "")) for link in item.findall(f"{NAMESPACE}link")]
        assert {relation for relation, _ in links} == ({"alternate", "self"} if item is root else {"alternate"})
        assert all(address.startswith("http") for _, address in links)
        if item is not root:
            assert item.findtext(f"{NAMESPACE}author/{NAMESPACE}name")
    return list(parsed.entries)


@pytest.mark.parametrize("path", PATHS)
def test_feed_has_the_newest_posts_with_author_text_tags_and_times(
    client: TestClient, person: Person, make_post: MakePost, path: str
) -> None:
    first = make_post(person, title="one & <b>two</b>", content="a < b\nnext & last", tags=["moths", "night"])
    second = make_post(person, tags=["moths"])
    response = client.get(path.format(user_id=person.id), headers=person.headers)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/atom+xml; charset=utf-8"
    newest, oldest = entries(response.content)
    assert newest.id == newest.link == f"{SITE}/posts/{second}"
    assert oldest.id == f"{SITE}/posts/{first}"
    assert oldest.title == "one & <b>two</b>"
    assert oldest.content[0].value == "a &lt; b<br />\nnext &amp; last"
    assert oldest.author == f"user{person.id}"
    assert [tag.term for tag in oldest.tags] == ["moths", "night"]
    shown = client.get(f"/posts/{first}", headers=person.headers).json()["Post"]
    assert datetime.fromisoformat(oldest.published) == datetime.fromisoformat(shown["created_at"])


def test_feeds_of_a_user_and_of_a_tag_have_no_other_posts(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_post: MakePost
) -> None:
    own, other = make_post(person, tags=["moths"]), make_post(make_person(), tags=["bees"])

    def ids(path: str) -> list[str]:
        found = entries(client.get(path, headers=person.headers).content)
        return [entry.id.removeprefix(f"{SITE}/posts/") for entry in found]

    assert ids("/posts.atom") == [str(other), str(own)]
    assert ids(f"/users/{person.id}/posts.atom") == ids("/tags/moths/posts.atom") == [str(own)]
    assert ids("/tags/MOTHS/posts.atom") == [str(own)]
    assert ids("/tags/none/posts.atom") == []


def test_feed_has_twenty_posts_and_says_whose_they_are(client: TestClient, person: Person, make_post: MakePost) -> None:
    path = f"/users/{person.id}/posts.atom"
    empty = client.get(path, headers=person.headers)
    assert entries(empty.content) == []
    assert client.get(path, headers=person.headers).content == empty.content
    assert feedparser.parse(empty.content).feed.title == f"Posts of user{person.id}"
    for _ in range(21):
        make_post(person)

    assert len(entries(client.get(path, headers=person.headers).content)) == 20
    assert_refused(client.get("/users/999999/posts.atom", headers=person.headers), 404, "user_not_found")


@pytest.mark.parametrize("path", PATHS)
def test_drafts_and_posts_of_blocked_users_are_not_in_it(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_post: MakePost, path: str
) -> None:
    reader = make_person()
    make_post(person, published=False, tags=["moths"])
    make_post(person, tags=["moths"])
    path = path.format(user_id=person.id)
    assert len(entries(client.get(path, headers=person.headers).content)) == 1
    before = client.get(path, headers=reader.headers)
    assert client.put(f"/users/{person.id}/block", headers=reader.headers).status_code == 200

    after = client.get(path, headers=reader.headers)
    assert entries(after.content) == []
    assert after.headers["ETag"] != before.headers["ETag"]


def test_feed_shows_no_email_address(client: TestClient, person: Person, make_post: MakePost) -> None:
    make_post(person)
    assert person.email not in client.get("/posts.atom", headers=person.headers).text


def test_text_that_xml_cannot_hold_is_replaced(client: TestClient, person: Person, make_post: MakePost) -> None:
    make_post(person, title="bell \x07", content="escape \x1b \ufffe ]]> &#0; <script>\U0001f98b")
    (entry,) = entries(client.get("/posts.atom", headers=person.headers).content)
    assert entry.title == "bell \ufffd"
    assert entry.content[0].value == "escape \ufffd \ufffd ]]&gt; &amp;#0; &lt;script&gt;\U0001f98b"


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_feed_is_304(client: TestClient, person: Person, make_post: MakePost, path: str) -> None:
    make_post(person, tags=["moths"])
    path = path.format(user_id=person.id)
    read = client.get(path, headers=person.headers)
    headers = person.headers | {"If-None-Match": read.headers["ETag"]}
    unchanged = client.get(path, headers=headers)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert read.headers["Cache-Control"] == "private, no-cache"
    make_post(person, tags=["moths"])
    assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_feed_key_in_the_address_is_enough_until_it_is_deleted(
    client: TestClient, person: Person, make_post: MakePost, feed_key: str, path: str
) -> None:
    make_post(person, tags=["moths"])
    path = path.format(user_id=person.id)
    address = f"{path}?key={feed_key}"
    response = client.get(address)
    assert len(entries(response.content)) == 1
    assert feed_key not in response.text
    (key,) = client.get("/api-keys", headers=person.headers).json()
    assert client.delete(f"/api-keys/{key['id']}", headers=person.headers).status_code == 204

    assert_unauthenticated(client.get(path))
    for refused in (client.get(address), client.get(f"{path}?key=spk_x"), client.get(f"{path}?key=")):
        assert_refused(refused, 401, "not_authenticated")


@pytest.mark.parametrize("scopes", [["read"], ["read", "write"]], ids=str)
def test_key_with_other_scopes_is_refused_in_the_address(client: TestClient, person: Person, scopes: list[str]) -> None:
    key = make_key(client, person, scopes)
    assert_refused(client.get(f"/posts.atom?key={key}"), 401, "not_authenticated")
    assert client.get("/posts.atom", headers={"X-API-Key": key}).status_code == 200


@pytest.mark.parametrize("operation", sorted(OPEN_TO_KEYS), ids=" ".join)
def test_feed_key_opens_nothing_else(client: TestClient, feed_key: str, operation: tuple[str, str]) -> None:
    method, path = operation
    path = path.replace("{id}", "1").replace("{name}", "moths")
    for headers in ({"X-API-Key": feed_key}, {"Authorization": f"Bearer {feed_key}"}):
        assert_unauthenticated(client.request(method, path, headers=headers, json={}))


@pytest.mark.parametrize("scopes", [["feed", "read"], ["feed", "write"], ["write"], []], ids=str)
def test_scope_of_feeds_stands_alone(client: TestClient, person: Person, scopes: list[str]) -> None:
    made = client.post("/api-keys", json={"name": "reader", "scopes": scopes}, headers=person.headers)
    assert made.status_code == 422


@pytest.fixture
def _public_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "public_reads", True)


@pytest.mark.usefixtures("_public_reads")
@pytest.mark.parametrize("path", PATHS)
def test_with_public_reads_caches_may_share_it(
    client: TestClient, person: Person, make_post: MakePost, path: str
) -> None:
    make_post(person, tags=["moths"])
    response = client.get(path.format(user_id=person.id))
    assert len(entries(response.content)) == 1
    assert response.headers["Cache-Control"] == "public, max-age=5, stale-while-revalidate=30"


def test_addresses_begin_with_the_public_url(
    client: TestClient, person: Person, make_post: MakePost, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_id = make_post(person, tags=["moths"])
    monkeypatch.setattr(get_settings(), "public_url", "https://social.example/api")
    response = client.get("/tags/moths/posts.atom", headers=person.headers)
    (entry,) = entries(response.content)
    assert entry.link == f"https://social.example/api/posts/{post_id}"
    links = {link.rel: link.href for link in feedparser.parse(response.content).feed.links}
    assert links == {
        "alternate": "https://social.example/api/posts?tag=moths",
        "self": "https://social.example/api/tags/moths/posts.atom",
    }


def test_posts_of_deleted_accounts_are_gone(
    client: TestClient, connection: Connection, person: Person, make_person: Callable[..., Person], make_post: MakePost
) -> None:
    gone = make_person()
    make_post(gone)
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": gone.id})
    connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": gone.id})

    assert entries(client.get("/posts.atom", headers=person.headers).content) == []
    assert client.get(f"/users/{gone.id}/posts.atom", headers=person.headers).status_code == 404


def test_head_of_a_feed_is_escaped() -> None:
    head = atom.FeedHead("a & <b> \x07", "/posts.atom", "/posts")
    assert feedparser.parse(atom.render(head, [], SITE)).feed.title == "a & <b> \ufffd"
