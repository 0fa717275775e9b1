"""The statement itself reads no drafts of others for a caller who may not see them."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.security import access_tokens
from app.services import feed
from app.services.feed import search
from tests.fixtures import Person
from tests.services.test_plans import Explained, explained
from tests.services.walking import make_posts, read

MakePost = Callable[..., int]
Touched = Callable[..., int]
# As many as make an index worth its while.
POSTS = 3_000


@pytest.fixture
def ada(make_person: Callable[..., Person], connection: Connection) -> Iterator[Person]:
    """A user with many drafts that all contain one word."""
    ada = make_person()
    make_posts(connection, ada, POSTS)
    connection.execute(text("UPDATE posts SET published = id % 2 = 0, content = 'the merger with acme, no ' || id"))
    connection.execute(text("VACUUM ANALYZE posts, post_stats"))
    yield ada
    connection.execute(text("TRUNCATE users, posts CASCADE"))


def posts_read(plans: list[Explained]) -> int:
    """Return how many rows of posts PostgreSQL looked at, and how many entries of the index of words."""
    return sum(
        int(node["Actual Loops"]) * (int(node["Actual Rows"]) + int(node.get("Rows Removed by Filter", 0)))
        for plan in plans
        for node in plan.nodes
        if node.get("Relation Name") == "posts" or node.get("Index Name", "").startswith("posts_")
    )


@pytest.mark.parametrize("order", ["new", "old", "top", "hot"])
@pytest.mark.parametrize("words", [None, "merger", "nothing"])
def test_no_post_is_read_for_a_caller_who_asks_for_drafts_of_another_user(
    database: Engine, connection: Connection, ada: Person, person: Person, order: str, words: str | None
) -> None:
    query = feed.PageQuery(order, 10, search=words, owner_id=ada.id, is_drafts=True)  # type: ignore[arg-type]

    with explained(database) as plans:
        page = read(connection, person, query).page

    assert page.rows == []
    assert len(plans) == 1
    assert posts_read(plans) == 0


def test_words_of_other_drafts_cost_a_search_of_own_drafts_nothing(
    database: Engine, connection: Connection, ada: Person, person: Person, make_post: MakePost
) -> None:
    own = [make_post(person, content=content, published=False) for content in ("the merger", "acme", "hay")]
    make_post(person, content="the merger")

    def searched(words: str) -> tuple[list[int], int]:
        query = feed.PageQuery("old", 10, search=words, owner_id=person.id, is_drafts=True)
        with explained(database) as plans:
            page = read(connection, person, query).page
        assert len(plans) == 1
        return [row.id for row in page.rows], posts_read(plans)

    (found, touched), (none, as_many) = searched("merger"), searched("nowhere")

    assert (found, none) == (own[:1], [])
    assert touched == as_many <= 3 * len(own) + 3
    assert ada.id != person.id


def test_words_of_drafts_cost_a_search_of_published_posts_nothing(
    database: Engine, connection: Connection, ada: Person, person: Person
) -> None:
    connection.execute(text("UPDATE posts SET content = 'acme' WHERE published"))
    connection.execute(text("VACUUM ANALYZE posts"))

    def touched(words: str) -> int:
        with explained(database) as plans:
            assert read(connection, person, feed.PageQuery("new", 10, search=words)).page.rows == []
        return posts_read(plans)

    assert ada.id != person.id
    connection.execute(text("SET enable_seqscan = off"))  # As in a table that is too large for it.
    # 1,500 drafts of others have the one word, and no post the other.
    found = touched("merger"), touched("nowhere")
    connection.execute(text("RESET enable_seqscan"))
    assert found == (0, 0)


def test_drafts_are_not_among_the_few_posts_that_a_search_finds(
    connection: Connection, person: Person, make_post: MakePost
) -> None:
    public = make_post(person, content="the merger with acme")
    make_post(person, content="the merger with acme", published=False)

    assert search.find(connection, "merger") == {"found": [public]}


def test_moderators_and_owners_search_drafts(
    client: TestClient, make_person: Callable[..., Person], make_post: MakePost
) -> None:
    ada, bob = make_person(), make_person()
    draft = make_post(ada, content="the merger", published=False)
    make_post(ada, content="something else", published=False)
    for reader, status in ((ada, [draft]), (make_person(role="moderator"), [draft]), (bob, [])):
        for sort in ("new", "old", "top", "hot"):
            response = client.get(
                "/posts",
                params={"published": False, "owner_id": ada.id, "search": "merg", "sort": sort},
                headers=reader.headers,
            )
            assert [item["Post"]["id"] for item in response.json()] == status


def test_a_caller_in_one_batch_with_the_owner_still_sees_nothing(
    connection: Connection, make_person: Callable[..., Person], make_post: MakePost
) -> None:
    ada, bob = make_person(), make_person()
    make_post(ada, published=False)
    query = feed.PageQuery("new", 10, owner_id=ada.id, is_drafts=True)

    answers = feed.read(connection, [feed.PageRequest(access_tokens.verify(one.token), query) for one in (bob, ada)])

    shown = [len(answer.page.rows) for answer in answers if isinstance(answer, feed.PageResponse)]
    assert shown == [0, 1]
