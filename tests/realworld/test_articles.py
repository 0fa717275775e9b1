"""`/api/articles`, their comments, and `/api/tags`."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.realworld.schemas import post_id_of, slug_of
from tests.fixtures import Person, counted_queries
from tests.realworld.conftest import JSON, MakePost, Rows, as_token, assert_errors, name_of, profile_of, shown

NEW = {"title": "How to train", "description": "Ever wonder?", "body": "Carefully", "tagList": ["zoo", "dragons"]}
POSTS = "SELECT title, description, content, tags, published, version FROM posts"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MakeComment = Callable[..., int]


def written(client: TestClient, author: Person, **article: object) -> JSON:
    answer = client.post("/api/articles", json={"article": NEW | article}, headers=as_token(author))
    return dict(shown(answer, "article", 201))


def listed(client: TestClient, path: str = "/api/articles", reader: Person | None = None) -> tuple[list[int], int]:
    """Return the ids of the listed articles, and their whole number."""
    answer = client.get(path, headers=as_token(reader) if reader else {})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"articles", "articlesCount"}
    return [post_id_of(article["slug"]) for article in body["articles"]], body["articlesCount"]


def test_article_is_written_as_a_published_post(conduit: TestClient, person: Person, rows: Rows) -> None:
    article = written(conduit, person)

    [(post_id, created_at)] = rows("SELECT id, created_at FROM posts")
    times = [article.pop(name) for name in ("createdAt", "updatedAt")]
    assert all(TIME.fullmatch(time) for time in times)
    assert abs((datetime.fromisoformat(times[0]) - created_at).total_seconds()) < 0.002
    assert article == {
        **NEW, "slug": f"how-to-train-{post_id}", "favorited": False, "favoritesCount": 0, "author": profile_of(person),
    }  # fmt: skip
    assert rows(POSTS) == [("How to train", "Ever wonder?", "Carefully", ["zoo", "dragons"], True, 1)]
    post = conduit.get(f"/posts/{post_id}", headers=person.headers).json()["Post"]
    assert (post["title"], post["content"], post["tags"]) == (NEW["title"], NEW["body"], NEW["tagList"])
    assert "description" not in post
    read = shown(conduit.get(f"/api/articles/{article['slug']}"), "article")
    assert read == article | dict(zip(("createdAt", "updatedAt"), times, strict=True))


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("How to train your dragon", "how-to-train-your-dragon-7"), ("  Ünïcode & más  ", "unicode-mas-7"),
        ("龙", "7"), ("-1-", "1-7"), ("x" * 300, "x" * 100 + "-7"), ("a" * 99 + " b", "a" * 99 + "-7"),
    ],
)  # fmt: skip
def test_slug_has_the_words_of_the_title_and_the_id(title: str, slug: str) -> None:
    assert slug_of(7, title) == slug
    assert post_id_of(slug) == 7


@pytest.mark.parametrize(
    "slug", ["unknown", "0", "x-0", "x--", "-", "9" * 19, "x-9223372036854775807", "9" * 40, "-1", "7x", "٣", "1%0a"]
)
def test_slug_of_no_article_is_404(conduit: TestClient, person: Person, slug: str) -> None:
    for method, path in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/favorite"), ("DELETE", "/favorite"), ("GET", "/comments"),
        ("POST", "/comments"), ("DELETE", "/comments/1"),
    ):  # fmt: skip
        body = {"comment": {"body": "x"}} if path else {"article": {"title": "x"}}
        answer = conduit.request(method, f"/api/articles/{slug}{path}", json=body, headers=as_token(person))
        assert answer.status_code == 404, (method, path)
        assert answer.json()["errors"] == ({"message": ["Not Found"]} if "%" in slug else {"article": ["not found"]})


def test_old_slug_finds_the_article_under_its_new_title(conduit: TestClient, person: Person) -> None:
    slug = written(conduit, person)["slug"]
    answer = conduit.put(f"/api/articles/{slug}", json={"article": {"title": "New"}}, headers=as_token(person))
    new_slug = shown(answer, "article")["slug"]

    assert new_slug != slug
    for each in (slug, new_slug, slug.rpartition("-")[2]):
        assert shown(conduit.get(f"/api/articles/{each}"), "article")["slug"] == new_slug


def test_lists_are_newest_first_without_bodies_and_by_tag_author_and_favorite(
    conduit: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    first, second, third = (
        make_post(author, title=f"{number}", tags=tags, created_at=f"2026-01-0{number}")
        for number, author, tags in ((1, person, ["a"]), (2, other, ["a", "b"]), (3, person, []))
    )
    answer = conduit.get("/api/articles").json()["articles"]
    assert all(article.keys() == {*NEW, *_ADDED} - {"body"} for article in answer)
    assert listed(conduit) == ([third, second, first], 3)
    assert listed(conduit, "/api/articles?tag=a") == ([second, first], 2)
    assert listed(conduit, f"/api/articles?author={name_of(person)}") == ([third, first], 2)
    # The smaller one of both counters.
    assert listed(conduit, f"/api/articles?author={name_of(person).upper()}&tag=a") == ([first], 2)
    assert listed(conduit, "/api/articles?limit=1&offset=1") == ([second], 3)
    assert listed(conduit, "/api/articles?limit=1000&offset=10000") == ([], 3)
    for slug in (third, first):
        conduit.post(f"/api/articles/{slug}/favorite", headers=as_token(other))
    assert listed(conduit, f"/api/articles?favorited={name_of(other)}") == ([first, third], 2)
    for name in ("author", "favorited"):
        assert listed(conduit, f"/api/articles?{name}=unknown") == ([], 0)
    assert listed(conduit, "/api/articles?tag=unknown") == ([], 0)


_ADDED = ("slug", "createdAt", "updatedAt", "favorited", "favoritesCount", "author")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "offset=-1", "offset=10001", "favorited=a&author=b", "favorited=a&tag=b", "tag=!"]
)
def test_impossible_lists_are_refused(conduit: TestClient, query: str) -> None:
    answer = conduit.get(f"/api/articles?{query}")

    assert (answer.status_code, [*answer.json()["errors"]]) == (422, [query.partition("=")[0]])


def test_page_of_the_longest_posts_is_whole_and_costs_few_statements(
    conduit: TestClient, database: Engine, connection: Connection, person: Person
) -> None:
    connection.execute(
        text("INSERT INTO posts (owner_id, title, content) SELECT :id, 'x', repeat(U&'\\+01F600', 40000) "
             "FROM generate_series(1, 25)"),
        {"id": person.id},
    )  # fmt: skip
    with counted_queries(database) as statements:
        post_ids, count = listed(conduit)

    assert (len(post_ids), count) == (20, 25)
    assert post_ids == sorted(post_ids, reverse=True)
    assert len(statements) <= 5, statements


def test_feed_has_articles_of_followed_users_and_tags_and_ones_own(
    conduit: TestClient, person: Person, other: Person, moderator: Person, make_post: MakePost
) -> None:
    followed, tagged = make_post(other), make_post(moderator, tags=["sea"])
    make_post(moderator)
    assert listed(conduit, "/api/articles/feed", person) == ([], 0)
    conduit.post(f"/api/profiles/{name_of(other)}/follow", headers=as_token(person))
    assert listed(conduit, "/api/articles/feed", person) == ([followed], 1)
    conduit.put("/tags/sea/follow", headers=person.headers)
    own = make_post(person)
    assert listed(conduit, "/api/articles/feed", person) == ([own, tagged, followed], 3)
    assert listed(conduit, "/api/articles/feed?limit=1&offset=1", person) == ([tagged], 3)
    answer = conduit.get("/api/articles/feed", headers=as_token(person)).json()["articles"]
    assert [article["author"]["following"] for article in answer] == [False, False, True]


def test_article_is_changed_in_parts(conduit: TestClient, person: Person, rows: Rows) -> None:
    slug = written(conduit, person)["slug"]

    def change(**article: Any) -> JSON:
        answer = conduit.put(f"/api/articles/{slug}", json={"article": article}, headers=as_token(person))
        return dict(shown(answer, "article"))

    assert change(description="New")["description"] == "New"
    assert change(body="new", tagList=[])["tagList"] == []
    assert rows(POSTS) == [("How to train", "New", "new", [], True, 3)]
    # Equal values are no change.
    change(description="New")
    change()
    assert rows(POSTS)[0][-1] == 3
    # The main API knows no description, and keeps it.
    post = {"title": "t", "content": "c"}
    assert conduit.put(f"/posts/{post_id_of(slug)}", json=post, headers=person.headers).status_code == 200
    assert rows(POSTS) == [("t", "New", "c", [], True, 4)]


@pytest.mark.parametrize("name", ["title", "description", "body", "tagList"])
def test_no_part_of_an_article_can_be_removed(conduit: TestClient, person: Person, rows: Rows, name: str) -> None:
    slug = written(conduit, person)["slug"]
    for value in (None, "", " "):
        for method, path in (("PUT", f"/api/articles/{slug}"), ("POST", "/api/articles")):
            body = {"article": NEW | {name: value}}
            answer = conduit.request(method, path, json=body, headers=as_token(person))
            assert (answer.status_code, [*answer.json()["errors"]]) == (422, [name])
    assert rows("SELECT version FROM posts") == [(1,)]


def test_articles_of_others_are_neither_changed_nor_deleted_but_by_moderators(
    conduit: TestClient, person: Person, other: Person, moderator: Person, rows: Rows
) -> None:
    path = f"/api/articles/{written(conduit, person)['slug']}"
    for method in ("PUT", "DELETE"):
        answer = conduit.request(method, path, json={"article": {"title": "x"}}, headers=as_token(other))
        assert_errors(answer, 403, article="forbidden")
    assert rows("SELECT title FROM posts") == [("How to train",)]

    assert conduit.delete(path, headers=as_token(moderator)).status_code == 204

    assert rows("SELECT action, user_id FROM moderation_log") == [("delete", person.id)]
    assert rows(POSTS) == []
    own = f"/api/articles/{written(conduit, person)['slug']}"
    deleted = conduit.delete(own, headers=as_token(person))
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_errors(conduit.delete(own, headers=as_token(person)), 404, article="not found")


def test_favorite_is_a_vote_and_idempotent(conduit: TestClient, person: Person, other: Person, rows: Rows) -> None:
    path = f"/api/articles/{written(conduit, person)['slug']}"
    for _ in range(2):
        article = shown(conduit.post(f"{path}/favorite", headers=as_token(other)), "article")
        assert (article["favorited"], article["favoritesCount"], article["body"]) == (True, 1, "Carefully")
        assert rows("SELECT user_id FROM votes") == [(other.id,)]
    for reader, favorited in ((None, False), (person, False), (other, True)):
        headers = as_token(reader) if reader else {}
        assert shown(conduit.get(path, headers=headers), "article")["favorited"] is favorited
    for _ in range(2):
        article = shown(conduit.delete(f"{path}/favorite", headers=as_token(other)), "article")
        assert (article["favorited"], article["favoritesCount"]) == (False, 0)
        assert rows("SELECT user_id FROM votes") == []


def test_tags_are_those_with_the_most_articles(conduit: TestClient, person: Person, make_post: MakePost) -> None:
    assert shown(conduit.get("/api/tags"), "tags") == []
    for tags in (["a", "b"], ["b"], ["c", "b"], ["c"]):
        make_post(person, tags=tags)
    make_post(person, tags=["draft"], published=False)

    for headers in ({}, as_token(person)):
        assert shown(conduit.get("/api/tags", headers=headers), "tags") == ["b", "c", "a"]


def test_comment_is_written_listed_and_deleted(conduit: TestClient, person: Person, other: Person, rows: Rows) -> None:
    path = f"/api/articles/{written(conduit, person)['slug']}/comments"
    assert shown(conduit.get(path), "comments") == []

    answer = conduit.post(path, json={"comment": {"body": "His name"}}, headers=as_token(other))
    comment = shown(answer, "comment", 201)

    [(comment_id,)] = rows("SELECT id FROM comments WHERE content = 'His name' AND owner_id = :id", id=other.id)
    times = {name: comment[name] for name in ("createdAt", "updatedAt")}
    assert all(TIME.fullmatch(time) for time in times.values())
    assert comment == {"id": comment_id, "body": "His name", "author": profile_of(other), **times}
    assert shown(conduit.get(path), "comments") == [comment]
    conduit.post(f"/api/profiles/{name_of(other)}/follow", headers=as_token(person))
    [read] = shown(conduit.get(path, headers=as_token(person)), "comments")
    assert read["author"] == profile_of(other, following=True)
    assert_errors(conduit.delete(f"{path}/{comment_id}", headers=as_token(person)), 403, comment="forbidden")
    deleted = conduit.delete(f"{path}/{comment_id}", headers=as_token(other))
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert rows("SELECT id FROM comments") == []
    assert_errors(conduit.delete(f"{path}/{comment_id}", headers=as_token(other)), 404, comment="not found")


def test_replies_are_listed_among_the_comments_without_deleted_ones(
    conduit: TestClient, person: Person, make_post: MakePost, make_comment: MakeComment
) -> None:
    post_id = make_post(person)
    first = make_comment(person, post_id)
    reply = make_comment(person, post_id, parent_id=first)
    deep = make_comment(person, post_id, parent_id=reply)
    last = make_comment(person, post_id)
    conduit.delete(f"/comments/{reply}", headers=person.headers)

    comments = shown(conduit.get(f"/api/articles/{post_id}/comments"), "comments")

    assert [comment["id"] for comment in comments] == [last, deep, first]


def test_comment_is_deleted_only_below_its_article(
    conduit: TestClient, person: Person, make_post: MakePost, make_comment: MakeComment, rows: Rows
) -> None:
    post_id, other_post_id = make_post(person), make_post(person)
    comment_id = make_comment(person, post_id)

    for slug, error in ((other_post_id, {"comment": "not found"}), (2**62, {"article": "not found"})):
        answer = conduit.delete(f"/api/articles/{slug}/comments/{comment_id}", headers=as_token(person))
        assert_errors(answer, 404, **error)

    assert rows("SELECT id FROM comments") == [(comment_id,)]
