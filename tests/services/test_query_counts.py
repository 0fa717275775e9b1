"""How many statements each route sends: no more for a page of a hundred, and fewer for a crowd."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.api import batch_queues
from app.config import get_settings
from app.security import access_tokens
from app.services import comment, feed, vote
from app.services.feed import home
from app.services.feed.pages import Order
from tests.fixtures import Person, counted_queries, linked
from tests.services.walking import make_posts, make_voters, read

# With the caller, and the caller's votes.
PAGE = 1
MAX_SECONDS = 10


@pytest.fixture
def posts(connection: Connection, person: Person) -> list[int]:
    """120 posts; the person voted for some."""
    post_ids = make_posts(connection, person, 120)
    connection.execute(text("INSERT INTO votes (post_id, user_id) SELECT id, owner_id FROM posts WHERE id % 2 = 0"))
    return post_ids


needs_batches = pytest.mark.skipif(get_settings().max_batch < 20, reason="MAX_BATCH is set too low")


@pytest.fixture
def send(client: TestClient, person: Person, database: Engine) -> Callable[..., list[str]]:
    """Send a request, which must succeed, and return the statements that it cost."""

    def send(method: str, path: str, **parameters: object) -> list[str]:
        with counted_queries(database) as statements:
            response = client.request(method, path, headers=person.headers, **parameters)  # type: ignore[arg-type]
        assert response.is_success, response.text
        return statements

    return send


Send = Callable[..., list[str]]


@pytest.mark.parametrize("limit", [1, 10, 100])
@pytest.mark.parametrize("sort", ["new", "old", "top", "hot"])
def test_page_costs_one_statement_and_so_does_the_next(
    client: TestClient, send: Send, posts: list[int], person: Person, sort: str, limit: int
) -> None:
    first = f"/posts?sort={sort}&limit={limit}"
    assert len(send("GET", first)) == PAGE
    following = linked(client.get(first, headers=person.headers))
    assert following is not None
    assert len(send("GET", following)) == PAGE
    assert len(posts) == 120


@pytest.mark.parametrize("limit", [1, 100])
def test_page_of_own_votes_costs_one_statement(send: Send, posts: list[int], limit: int) -> None:
    assert len(send("GET", f"/users/me/votes?limit={limit}")) == PAGE
    assert posts


def test_empty_page_costs_one_statement(send: Send) -> None:
    assert len(send("GET", "/posts")) == PAGE


def test_search_costs_two_statements(send: Send, posts: list[int]) -> None:
    assert len(send("GET", "/posts?search=title")) == 1 + PAGE
    assert len(send("GET", "/posts?search=nowhere")) == 1 + PAGE
    assert posts


def test_one_post_costs_one_statement(send: Send, posts: list[int]) -> None:
    assert len(send("GET", f"/posts/{posts[0]}")) == PAGE


@pytest.mark.parametrize("limit", [1, 100])
def test_posts_of_a_tag_cost_one_statement_and_sorted_by_votes_one_more(
    send: Send, posts: list[int], connection: Connection, limit: int
) -> None:
    connection.execute(text("UPDATE posts SET tags = '{a,b}'"))
    for sort in ("new", "old"):
        assert len(send("GET", f"/posts?tag=a&limit={limit}&sort={sort}&created_after=2020-01-01")) == PAGE
    for filters in ("sort=top", "sort=hot", "owner_id=1"):
        assert len(send("GET", f"/posts?tag=a&limit={limit}&{filters}")) == 1 + PAGE
    assert len(send("GET", f"/posts?tag=a&limit={limit}&search=title")) == 1 + PAGE
    assert len(posts) == 120


def test_tags_cost_the_caller_and_few_statements(send: Send, posts: list[int], connection: Connection) -> None:
    caller = 1
    connection.execute(text("UPDATE posts SET tags = ARRAY['a' || id, 'b']"))
    assert len(send("GET", "/tags?limit=100")) == caller + 1
    assert len(send("GET", "/tags?limit=100&sort=name")) == caller + 1
    assert len(send("GET", "/tags?limit=100&prefix=a")) == caller + 2
    assert len(send("GET", "/tags?limit=100&sort=name&prefix=b")) == caller + 2  # The second looks past the end.
    assert len(send("PUT", "/tags/b/follow")) == caller + 5
    assert len(send("DELETE", "/tags/b/follow")) == caller + 3
    new = {"title": "title", "content": "content", "tags": ["b", "new"]}
    assert len(send("POST", "/posts", json=new)) == caller + 2
    assert len(send("PATCH", f"/posts/{posts[0]}", json={"tags": ["other"]})) == caller + 3


def test_votes_cost_one_statement(send: Send, posts: list[int]) -> None:
    post_id = next(post_id for post_id in posts if post_id % 2)
    assert len(send("POST", "/vote", json={"post_id": post_id, "vote_dir": 1})) == 1
    assert len(send("POST", "/vote", json={"post_id": post_id, "vote_dir": 0})) == 1
    assert len(send("PUT", f"/posts/{post_id}/vote")) == 1
    assert len(send("DELETE", f"/posts/{post_id}/vote")) == 1


def test_votes_for_comments_cost_one_statement(
    send: Send, posts: list[int], person: Person, make_comment: Callable[..., int]
) -> None:
    comment_id = make_comment(person, posts[0])
    assert len(send("PUT", f"/comments/{comment_id}/vote")) == 1
    assert len(send("DELETE", f"/comments/{comment_id}/vote")) == 1


@pytest.mark.parametrize("sort", ["top", "new", "old"])
@pytest.mark.parametrize("depth", [0, 4])
def test_thread_costs_one_statement_at_every_depth(
    client: TestClient,
    send: Send,
    posts: list[int],
    person: Person,
    make_comment: Callable[..., int],
    sort: str,
    depth: int,
) -> None:
    parents: list[int | None] = [None]
    for _ in range(5):
        parents += [make_comment(person, posts[0], parent_id=parents[-1]) for _ in range(3)]
    first = f"/posts/{posts[0]}/comments?sort={sort}&depth={depth}&limit=1"
    assert len(send("GET", first)) == 1
    following = linked(client.get(first, headers=person.headers))
    assert following is not None
    assert len(send("GET", following)) == 1
    assert len(send("GET", f"{first}&parent_id={parents[-2]}")) == 1


def test_comments_cost_the_caller_and_few_statements(
    send: Send, posts: list[int], person: Person, make_comment: Callable[..., int]
) -> None:
    parent = make_comment(person, posts[0])
    # The write or the lock, and the comment as it is then.
    costs = {
        ("POST", f"/posts/{posts[0]}/comments"): 2,
        ("GET", f"/comments/{parent}"): 1,
        ("PATCH", f"/comments/{parent}"): 2,
        ("GET", f"/users/{person.id}/comments"): 1,
        # It is checked, locked with its ancestors, and looked at for replies; the counts are locked. Then its
        # notifications are removed.
        ("DELETE", f"/comments/{parent}"): 6,
    }
    for (method, path), cost in costs.items():
        body = {"json": {"content": "x"}} if method in {"POST", "PATCH"} else {}
        assert len(send(method, path, **body)) == 1 + cost, (method, path)


def test_notifications_cost_no_statement_of_a_comment(
    send: Send, posts: list[int], make_person: Callable[..., Person], make_comment: Callable[..., int]
) -> None:
    caller = 1
    names = [f"name{chr(97 + n)}" for n in range(10)]
    people = [make_person(username=name) for name in names]
    parent = make_comment(people[0], posts[0])
    for content in ("text", " ".join(f"@{name}" for name in names)):
        body = {"content": content, "parent_id": parent}
        assert len(send("POST", f"/posts/{posts[0]}/comments", json=body)) == caller + 2
    assert len(send("GET", "/notifications?limit=100")) == caller + 1
    assert len(send("GET", "/notifications/unread-count")) == caller + 1
    assert len(send("POST", "/notifications/read", json={"up_to": 1})) == caller + 2


def test_mentions_cost_two_statements_of_a_changed_comment(
    send: Send, posts: list[int], make_person: Callable[..., Person], make_comment: Callable[..., int], person: Person
) -> None:
    make_person(username="ada")
    path = f"/comments/{make_comment(person, posts[0])}"
    costs = {"text": 2, "@ada": 4, "@ada again": 3, "other": 2}
    for content, cost in costs.items():
        assert len(send("PATCH", path, json={"content": content})) == 1 + cost, content


def test_ordinary_routes_cost_the_caller_and_few_statements(send: Send, posts: list[int], person: Person) -> None:
    caller = 1
    new = {"title": "title", "content": "content"}
    # The second writes the event. A change locks the post first.
    assert len(send("POST", "/posts", json=new)) == caller + 2
    assert len(send("POST", "/posts", json=new | {"published": False})) == caller + 3
    assert len(send("PUT", f"/posts/{posts[0]}", json=new)) == caller + 3
    assert len(send("PATCH", f"/posts/{posts[0]}", json={"title": "other"})) == caller + 3
    # It locks the post, writes the event, measures the post, locks what goes along, and removes notifications.
    assert len(send("DELETE", f"/posts/{posts[0]}")) == caller + 6
    assert len(send("GET", "/users/me")) == caller + 1
    assert len(send("GET", f"/users/{person.id}")) == caller + 1
    assert len(send("GET", "/users/search?q=user")) == caller + 1


def test_profile_of_another_user_costs_two_statements(
    send: Send, client: TestClient, make_person: Callable[..., Person], database: Engine
) -> None:
    other = make_person()
    assert len(send("GET", f"/users/{other.id}")) == 2
    with counted_queries(database) as statements:
        assert client.get(f"/users/{other.id}").status_code == 200
    assert len(statements) == 1


@pytest.mark.parametrize("limit", [1, 100])
def test_page_of_bookmarks_costs_one_statement_also_for_a_reader_with_blocks(
    send: Send, posts: list[int], connection: Connection, person: Person, make_person: Callable[..., Person], limit: int
) -> None:
    connection.execute(text("INSERT INTO bookmarks SELECT id, owner_id FROM posts"))
    connection.execute(
        text("INSERT INTO blocks (blocker_id, blocked_id) VALUES (:a, :b)"), {"a": person.id, "b": make_person().id}
    )
    assert len(send("GET", f"/users/me/bookmarks?limit={limit}")) == PAGE
    assert len(send("GET", f"/posts?limit={limit}")) == PAGE
    assert len(send("GET", f"/posts/{posts[0]}")) == PAGE


@pytest.mark.parametrize("limit", [1, 100])
@pytest.mark.parametrize("followed", [0, 10, home.MAX_LOOKED_UP + 1])
def test_home_costs_one_statement_whatever_is_followed_and_so_does_the_next_page(
    client: TestClient, send: Send, posts: list[int], connection: Connection, person: Person, followed: int, limit: int
) -> None:
    connection.execute(
        text("INSERT INTO follows (follower_id, followee_id) SELECT :id, unnest(CAST(:ids AS bigint[]))"),
        {"id": person.id, "ids": make_voters(connection, followed)},
    )
    connection.execute(text("UPDATE posts SET tags = '{a}'"))
    assert len(send("PUT", "/tags/a/follow")) > 1
    assert len(send("GET", f"/home?limit={limit}")) == PAGE
    following = linked(client.get(f"/home?limit={limit}", headers=person.headers))
    assert following is not None
    assert len(send("GET", following)) == PAGE
    assert len(posts) == 120


def test_followed_tags_cost_the_caller_and_one_statement(send: Send) -> None:
    for name in ("a", "b"):
        send("PUT", f"/tags/{name}/follow")
    assert len(send("GET", "/tags?followed=true&limit=1")) == 1 + 1


def test_relations_cost_a_few_statements(send: Send, posts: list[int], make_person: Callable[..., Person]) -> None:
    caller, other = 1, make_person()
    # Each locks, looks, writes; a follow also notifies and reads the count.
    assert len(send("PUT", f"/users/{other.id}/follow")) == caller + 7
    assert len(send("PUT", f"/users/{other.id}/follow")) == caller + 3
    assert len(send("DELETE", f"/users/{other.id}/follow")) == caller + 3
    assert len(send("PUT", f"/users/{other.id}/block")) == caller + 5
    assert len(send("DELETE", f"/users/{other.id}/block")) == caller + 2
    assert len(send("PUT", f"/posts/{posts[0]}/bookmark")) == caller + 5
    assert len(send("PUT", f"/posts/{posts[0]}/mute")) == caller + 4
    assert len(send("GET", f"/posts/{posts[0]}/mute")) == caller + 1
    assert len(send("GET", f"/users/{other.id}")) == caller + 1
    assert len(send("GET", "/tags/a")) == caller + 1
    assert len(send("DELETE", f"/posts/{posts[0]}/mute")) == caller + 1
    assert len(send("DELETE", f"/posts/{posts[0]}/bookmark")) == caller + 3


@pytest.mark.parametrize("limit", [1, 100])
def test_lists_of_people_cost_the_caller_and_one_statement(
    send: Send, connection: Connection, person: Person, make_person: Callable[..., Person], limit: int
) -> None:
    for _ in range(3):
        pair = {"a": person.id, "b": make_person().id}
        connection.execute(text("INSERT INTO follows VALUES (:a, :b), (:b, :a)"), pair)
        connection.execute(text("INSERT INTO blocks VALUES (:a, :b)"), pair)
    for path in (f"{person.id}/followers", f"{person.id}/following", "me/blocks"):
        assert len(send("GET", f"/users/{path}?limit={limit}")) == 1 + 1


@pytest.mark.parametrize("limit", [1, 50])
def test_accounts_cost_two_statements(
    client: TestClient, make_person: Callable[..., Person], database: Engine, limit: int
) -> None:
    admin, *_ = [make_person(role="admin"), *(make_person() for _ in range(5))]
    with counted_queries(database) as statements:
        assert client.get(f"/users?limit={limit}", headers=admin.headers).status_code == 200
    assert len(statements) == 2


def at_once(database: Engine, *asked: Callable[[], Awaitable[object]]) -> list[str]:
    """Return the statements that these requests cost together when sent at once."""

    async def ask() -> None:
        await asyncio.wait_for(asyncio.gather(*(ask() for ask in asked)), MAX_SECONDS)

    with counted_queries(database) as statements:
        asyncio.run(ask())
    return statements


@needs_batches
def test_many_requests_for_one_page_cost_as_much_as_one(
    database: Engine, posts: list[int], make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(20)]
    questions = [feed.PageRequest(access_tokens.verify(person.token), feed.PageQuery("new", 10)) for person in people]
    statements = at_once(
        database, *(lambda question=question: batch_queues.read_page(question) for question in questions)
    )
    assert len(statements) == PAGE
    assert posts


@needs_batches
def test_many_requests_for_one_search_cost_as_much_as_one(
    database: Engine, posts: list[int], make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(20)]
    query = feed.PageQuery("new", 10, search="title")
    requests = [feed.PageRequest(access_tokens.verify(person.token), query) for person in people]
    statements = at_once(database, *(lambda request=request: batch_queues.read_page(request) for request in requests))
    assert len(statements) == 1 + PAGE
    assert posts


@needs_batches
@pytest.mark.parametrize("is_backward", [False, True])
@pytest.mark.parametrize("order", ["new", "old", "top", "hot"])
def test_many_pages_after_different_cursors_cost_one_statement(
    database: Engine, connection: Connection, posts: list[int], person: Person, order: Order, is_backward: bool
) -> None:
    token = access_tokens.verify(person.token)
    questions = []
    for skip in range(10, 30):
        page = read(connection, person, feed.PageQuery(order, 5, skip=skip)).page
        cursor = page.previous_cursor if is_backward else page.next_cursor
        assert cursor is not None
        position = feed.position_of(cursor, order)
        questions.append(feed.PageRequest(token, feed.PageQuery(order, 5, position=position)))
    statements = at_once(
        database,
        *(lambda question=question: batch_queues.read_page(question) for question in questions),
    )
    assert len(statements) == PAGE
    assert posts


@needs_batches
def test_many_requests_for_pages_of_one_kind_cost_one_statement(
    database: Engine, posts: list[int], person: Person
) -> None:
    token = access_tokens.verify(person.token)
    questions = [
        feed.PageRequest(token, feed.PageQuery("new", 1 + number % 5, skip=40 * number)) for number in range(20)
    ]
    statements = at_once(
        database, *(lambda question=question: batch_queues.read_page(question) for question in questions)
    )
    assert len(statements) == PAGE
    assert posts


@needs_batches
def test_many_requests_for_threads_of_one_kind_cost_one_statement(
    database: Engine, person: Person, posts: list[int], make_comment: Callable[..., int]
) -> None:
    token = access_tokens.verify(person.token)
    requests = [
        comment.ThreadRequest(token, comment.ThreadQuery(post_id, None, "top", 10, depth))
        for number, post_id in enumerate(posts[:20])
        for depth in (number % 5,)
    ]
    written = {post_id: make_comment(person, post_id) for post_id in posts[:20]}
    threads: list[comment.Thread] = []

    async def read_thread(request: comment.ThreadRequest) -> None:
        thread = await batch_queues.threads().submit(request)
        assert json.loads(thread.json)[0]["id"] == written[request.query.post_id]
        threads.append(thread)

    statements = at_once(database, *(partial(read_thread, request) for request in requests))

    assert len(statements) == 1
    assert len(threads) == 20


@needs_batches
def test_homes_of_many_readers_cost_one_statement(
    database: Engine, connection: Connection, posts: list[int], person: Person, make_person: Callable[..., Person]
) -> None:
    readers = [make_person() for _ in range(20)]
    for reader in readers:
        connection.execute(text("INSERT INTO follows VALUES (:a, :b)"), {"a": reader.id, "b": person.id})
    requests = [
        feed.PageRequest(access_tokens.verify(reader.token), feed.PageQuery("home", 10, reader_id=reader.id))
        for reader in readers
    ]
    shown: list[list[int]] = []

    async def read_home(request: feed.PageRequest) -> None:
        response = await batch_queues.read_page(request)
        shown.append([row.id for row in response.page.rows])

    statements = at_once(database, *(partial(read_home, request) for request in requests))

    assert len(statements) == PAGE
    assert shown == [sorted(posts, reverse=True)[:10]] * 20


@needs_batches
def test_crowd_that_votes_costs_one_statement(
    database: Engine, connection: Connection, posts: list[int], make_person: Callable[..., Person]
) -> None:
    connection.execute(text("DELETE FROM votes"))
    ballots = [vote.Ballot(access_tokens.verify(make_person().token), posts[n % 3], is_for=True) for n in range(20)]
    statements = at_once(
        database,
        *(lambda ballot=ballot: batch_queues.votes().submit(ballot) for ballot in ballots),
    )
    assert len(statements) == 1
    assert connection.scalar(text("SELECT count(*) FROM votes")) == 20


@needs_batches
def test_crowd_that_votes_for_comments_costs_one_statement(
    database: Engine, connection: Connection, person: Person, posts: list[int], make_person: Callable[..., Person],
    make_comment: Callable[..., int],
) -> None:  # fmt: skip
    comments = [make_comment(person, posts[0]) for _ in range(3)]
    ballots = [vote.Ballot(access_tokens.verify(make_person().token), comments[n % 3], is_for=True) for n in range(20)]
    statements = at_once(
        database,
        *(lambda ballot=ballot: batch_queues.comment_votes().submit(ballot) for ballot in ballots),
    )
    assert len(statements) == 1
    assert connection.scalar(text("SELECT count(*) FROM comment_votes")) == 20
    assert connection.scalar(text("SELECT sum(votes) FROM comment_stats")) == 20
