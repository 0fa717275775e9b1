"""A walk of a list meets each lasting post once, during any writes and votes.

In lists sorted by votes, this holds for the posts whose votes do not change meanwhile.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, text

from app.schemas import cursor as cursors
from app.security import access_tokens
from app.services import feed
from app.services.feed.pages import Order
from tests.fixtures import Person
from tests.services.walking import cast_at_random, make_posts, make_voters, read, rows, walk

ORDERS: tuple[Order, ...] = ("new", "old", "top", "hot", "voted", "bookmarked", "home")
OWN = {"voted", "bookmarked", "home"}
# What each list shows now, computed from the rows.
IN_ORDER = {
    "new": "SELECT id FROM posts WHERE published ORDER BY created_at DESC, id DESC",
    "old": "SELECT id FROM posts WHERE published ORDER BY created_at, id",
    "top": """
        SELECT id FROM posts WHERE published
        ORDER BY (SELECT count(*) FROM votes WHERE post_id = posts.id) DESC, id DESC
    """,
    "hot": """
        SELECT id FROM posts WHERE published
        ORDER BY hot_score((SELECT count(*) FROM votes WHERE post_id = posts.id)::integer, created_at) DESC, id DESC
    """,
    "voted": """
        SELECT post_id FROM votes JOIN posts ON posts.id = post_id
        WHERE user_id = :reader AND published ORDER BY votes.created_at DESC, post_id DESC
    """,
    "bookmarked": """
        SELECT post_id FROM bookmarks JOIN posts ON posts.id = post_id
        WHERE user_id = :reader AND published ORDER BY bookmarks.created_at DESC, post_id DESC
    """,
    # The reader follows nothing, and wrote all posts (tests/services/test_home.py has others).
    "home": "SELECT id FROM posts WHERE owner_id = :reader AND published ORDER BY created_at DESC, id DESC",
}

VOTING = ("vote", "vote", "vote", "retract", "retract")
WRITING = ("write", "edit", "delete", "hide", "show")
ACTIONS = WRITING + VOTING


@dataclass
class Place:
    """A site with readers and writers.

    `gone` are posts that were not in every list all the time, `moved` those whose votes changed. Half of the posts
    never get or lose a vote, so that a walk of them is strict also while others move around them.
    """

    connection: Connection
    reader: Person
    voters: list[int]
    gone: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)
    votes_taken_back: set[int] = field(default_factory=set)

    def query(self, order: Order, limit: int) -> feed.PageQuery:
        return feed.PageQuery(order, limit, reader_id=self.reader.id if order in OWN else None)

    def ids(self, order: Order) -> list[int]:
        return rows(self.connection, IN_ORDER[order], **({"reader": self.reader.id} if order in OWN else {}))

    def left(self, order: Order, ids: list[int]) -> list[int]:
        """Those of the posts that stood in their place throughout."""
        gone = self.gone | self.votes_taken_back if order == "voted" else self.gone
        return [post_id for post_id in self.unmoved(order, ids) if post_id not in gone]

    def unmoved(self, order: Order, ids: list[int]) -> list[int]:
        """Those of the posts that this list may not show twice."""
        moved = self.moved if order in {"top", "hot"} else set()
        return [post_id for post_id in ids if post_id not in moved]

    def choose(self, rng: random.Random, connection: Connection, *, is_voting: bool) -> list[int]:
        post_ids = rows(connection, "SELECT id FROM posts ORDER BY id")
        if not is_voting:
            return rng.sample(post_ids, rng.randint(1, 12))
        some = rng.sample([post_id for post_id in post_ids if post_id % 2], rng.randint(1, 12))
        self.moved.update(some)
        return some

    def do_something(self, rng: random.Random, connection: Connection, actions: tuple[str, ...] = ACTIONS) -> None:
        """Write, edit, delete, hide or show a post, or change votes, one or many; committed."""
        action = rng.choice(actions)
        some = self.choose(rng, connection, is_voting=action in VOTING)
        voter = rng.choice([*self.voters, self.reader.id, self.reader.id])
        match action:
            case "write":
                statement = """
                    INSERT INTO posts (owner_id, title, content, created_at)
                    SELECT :reader, 'new', 'new', CASE n % 2 WHEN 0 THEN now()
                        ELSE timestamptz '2026-11-01 00:00:00+00' + interval '1 minute' * (n % 97) END
                    FROM unnest(CAST(:some AS bigint[])) AS n
                """
            case "edit":
                statement = "UPDATE posts SET title = 'edited', version = version + 1 WHERE id = ANY (:some)"
            case "delete":
                self.gone.update(some[:2])
                statement = "DELETE FROM posts WHERE id = ANY (:two)"
            case "hide":
                self.gone.update(some[:2])
                statement = "UPDATE posts SET published = false WHERE id = ANY (:two)"
            case "show":
                statement = "UPDATE posts SET published = true WHERE NOT published"
            case "vote":
                # Some get a single vote; one is carried from the end to the top.
                if rng.random() < 0.5:
                    statement = """
                        INSERT INTO votes (post_id, user_id) SELECT unnest(CAST(:some AS bigint[])), :voter
                        ON CONFLICT DO NOTHING
                    """
                else:
                    statement = """
                        INSERT INTO votes (post_id, user_id)
                        SELECT (CAST(:some AS bigint[]))[1], unnest(CAST(:voters AS bigint[])) ON CONFLICT DO NOTHING
                    """
            case _:
                if rng.random() < 0.5:
                    if voter == self.reader.id:
                        self.votes_taken_back.update(some)
                    statement = "DELETE FROM votes WHERE user_id = :voter AND post_id = ANY (:some)"
                else:
                    statement = """
                        DELETE FROM votes WHERE post_id = ANY (:three) AND user_id = ANY (:voters)
                    """
        connection.execute(
            text(statement),
            {
                "some": some,
                "two": some[:2],
                "three": some[:3],
                "voter": voter,
                "voters": self.voters,
                "reader": self.reader.id,
            },
        )


@pytest.fixture
def place(connection: Connection, person: Person) -> Place:
    """300 posts, some with the same number of votes; the reader voted for a third, and bookmarked as many."""
    voters = make_voters(connection, 30)
    post_ids = make_posts(connection, person, 300)
    cast_at_random(connection, voters, 0.25)
    for post_id in post_ids[::3]:
        connection.execute(
            text("INSERT INTO votes (post_id, user_id) VALUES (:post_id, :id)"), {"post_id": post_id, "id": person.id}
        )
    connection.execute(
        text("INSERT INTO bookmarks SELECT post_id, user_id, created_at FROM votes WHERE user_id = :id"),
        {"id": person.id},
    )
    return Place(connection, person, voters)


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("order", ORDERS)
def test_links_lead_through_the_whole_list_and_back(place: Place, order: Order, limit: int) -> None:
    forwards = walk(place.connection, place.reader, place.query(order, limit))
    assert forwards.ids == place.ids(order)
    backwards = walk(place.connection, place.reader, place.query(order, limit), begin=forwards.last, is_backward=True)
    assert [page for page in reversed(backwards.pages) if page] == forwards.pages[:-1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [3, 10, 50])
@pytest.mark.parametrize(
    ("order", "actions"), [*((order, ACTIONS) for order in ORDERS), ("top", WRITING), ("hot", WRITING)]
)
def test_walk_meets_each_post_once_despite_changes_between_its_pages(
    place: Place, order: Order, actions: tuple[str, ...], limit: int, seed: int
) -> None:
    rng = random.Random(f"{order} {limit} {seed}")
    query = place.query(order, limit)
    at_first = place.ids(order)

    def happen() -> None:
        for _ in range(rng.randint(0, 1 + limit // 5)):
            place.do_something(rng, place.connection, actions)

    forwards = walk(place.connection, place.reader, query, between=happen)
    assert place.unmoved(order, forwards.ids) == list(dict.fromkeys(place.unmoved(order, forwards.ids)))
    # Not only none is missing: they come in the order of the moment the walk began.
    stayed = set(place.left(order, at_first))
    assert [post_id for post_id in forwards.ids if post_id in stayed] == place.left(order, at_first)

    backwards = walk(place.connection, place.reader, query, begin=forwards.last, is_backward=True, between=happen)
    met = [post_id for page in reversed(backwards.pages) for post_id in page] + [row.id for row in forwards.last.rows]
    assert place.unmoved(order, met) == list(dict.fromkeys(place.unmoved(order, met)))
    stayed = set(place.left(order, at_first))
    assert [post_id for post_id in met if post_id in stayed] == place.left(order, at_first)
    assert len(stayed) > 20
    assert bool(place.moved) == (actions == ACTIONS)


@pytest.mark.parametrize("order", ORDERS)
def test_walk_meets_each_post_once_during_writes(place: Place, database: Engine, order: Order) -> None:
    is_over = threading.Event()
    errors: list[Exception] = []
    at_first = place.ids(order)

    def write(seed: int) -> None:
        rng = random.Random(seed)
        try:
            with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                while not is_over.is_set():
                    place.do_something(rng, connection)
        except Exception as error:  # To be shown where the test ends.
            errors.append(error)

    writer = threading.Thread(target=write, args=(1,))
    writer.start()
    try:
        walks = [walk(place.connection, place.reader, place.query(order, limit)).ids for limit in (5, 20, 60)]
    finally:
        is_over.set()
        writer.join(10)
    assert not errors
    for ids in walks:
        assert place.unmoved(order, ids) == list(dict.fromkeys(place.unmoved(order, ids)))
        assert set(place.left(order, at_first)) <= set(ids)


def _commit(connection: Connection) -> None:
    connection.commit()


def _roll_back(connection: Connection) -> None:
    connection.rollback()


@pytest.fixture
def open_votes(place: Place, database: Engine) -> Iterator[Connection]:
    """An open transaction that moved the last post to the top, the first to the end."""
    with ExitStack() as stack:
        connection = stack.enter_context(database.connect())
        ids = place.ids("top")
        place.moved = {*ids[:20], *ids[-20:]}
        connection.execute(
            text("""
                INSERT INTO votes (post_id, user_id) SELECT post_id, voter
                FROM unnest(CAST(:last AS bigint[])) AS post_id, unnest(CAST(:voters AS bigint[])) AS voter
                ON CONFLICT DO NOTHING
            """),
            {"last": ids[-20:], "voters": place.voters},
        )
        connection.execute(text("DELETE FROM votes WHERE post_id = ANY (:first)"), {"first": ids[:20]})
        # Later transactions end before it does: walks see what these changed, and not what it did.
        place.connection.execute(text("DELETE FROM votes WHERE post_id = ANY (:ids)"), {"ids": ids[100:120]})
        yield connection


@pytest.mark.parametrize("end", [_commit, _roll_back])
@pytest.mark.parametrize("order", ["top", "hot"])
def test_votes_under_way_when_a_walk_began_change_no_place_but_those_of_their_posts(
    place: Place, open_votes: Connection, order: Order, end: Callable[[Connection], None]
) -> None:
    at_first = place.ids(order)
    query = place.query(order, 10)
    pages_left = iter(range(100))

    def happen() -> None:
        if next(pages_left) == 9:
            end(open_votes)

    forwards = walk(place.connection, place.reader, query, between=happen)
    assert place.left(order, forwards.ids) == place.left(order, at_first)
    assert len(place.left(order, at_first)) == 260
    backwards = walk(place.connection, place.reader, query, begin=forwards.last, is_backward=True)
    met = [post_id for page in reversed(backwards.pages) for post_id in page] + [row.id for row in forwards.last.rows]
    assert place.left(order, met) == place.left(order, at_first)
    # Once they have ended, a walk meets their posts as well.
    assert walk(place.connection, place.reader, query).ids == place.ids(order)
    assert (place.ids(order) == at_first) == (end is _roll_back)


def _of_drafts(place: Place, order: Order) -> tuple[feed.PageQuery, str]:
    place.connection.execute(text("UPDATE posts SET published = false WHERE id % 2 = 0"))
    query = feed.PageQuery(order, 8, owner_id=place.reader.id, is_drafts=True)
    return query, IN_ORDER[order].replace("WHERE published", "WHERE NOT published")


def _of_one_owner(place: Place, order: Order) -> tuple[feed.PageQuery, str]:
    place.connection.execute(text("UPDATE posts SET owner_id = :id WHERE id % 2 = 0"), {"id": place.voters[0]})
    query = feed.PageQuery(order, 8, owner_id=place.reader.id)
    return query, IN_ORDER[order].replace("WHERE published", f"WHERE owner_id = {place.reader.id} AND published")


def _of_some_hours(_: Place, order: Order) -> tuple[feed.PageQuery, str]:
    start, end = datetime(2026, 11, 1, 0, 10, tzinfo=UTC), datetime(2026, 11, 1, 1, 20, tzinfo=UTC)
    query = feed.PageQuery(order, 8, created_after=start, created_before=end)
    are_within = f"WHERE created_at > '{start}' AND created_at < '{end}' AND published"
    return query, IN_ORDER[order].replace("WHERE published", are_within)


def _of_a_search(place: Place, order: Order) -> tuple[feed.PageQuery, str]:
    place.connection.execute(text("UPDATE posts SET title = 'needle' WHERE id % 2 = 0"))
    query = feed.PageQuery(order, 8, search="needle")
    return query, IN_ORDER[order].replace("WHERE published", "WHERE title = 'needle' AND published")


@pytest.mark.parametrize("part", [_of_drafts, _of_one_owner, _of_some_hours, _of_a_search])
@pytest.mark.parametrize("order", ["top", "hot"])
def test_walk_of_a_part_of_a_list_meets_each_post_once_that_gets_and_loses_no_vote(
    place: Place, order: Order, part: Callable[[Place, Order], tuple[feed.PageQuery, str]]
) -> None:
    query, statement = part(place, order)
    at_first = rows(place.connection, statement)
    forwards = walk(place.connection, place.reader, query)
    assert forwards.ids == at_first
    backwards = walk(place.connection, place.reader, query, begin=forwards.last, is_backward=True)
    assert [page for page in reversed(backwards.pages) if page] == forwards.pages[:-1]

    rng = random.Random(1)

    def vote() -> None:
        some = rng.sample(at_first[::3], 10)
        place.moved.update(some)
        place.connection.execute(text("DELETE FROM votes WHERE post_id = ANY (:some)"), {"some": some})

    assert place.left(order, walk(place.connection, place.reader, query, between=vote).ids) == place.left(
        order, at_first
    )
    assert rows(place.connection, statement) != at_first


@pytest.mark.parametrize("part", [_of_drafts, _of_one_owner, _of_a_search, None])
@pytest.mark.parametrize("order", ["top", "hot"])
def test_cursors_of_the_release_before_continue_after_their_values(
    place: Place, order: Order, part: Callable[[Place, Order], tuple[feed.PageQuery, str]] | None
) -> None:
    query, statement = part(place, order) if part else (place.query(order, 8), IN_ORDER[order])
    middle = read(place.connection, place.reader, replace(query, skip=30)).page
    expected = rows(place.connection, statement)
    # The transactions that the cursor's snapshot did not see: (before) written out, (now) relative to the first.
    for snapshot in ("1000:1007:1000,1003", [1000, 7, 0, 3]):
        for made, is_backward in ((middle.next_cursor, False), (middle.previous_cursor, True)):
            assert made is not None
            of_order, backward, value, post_id, _, *words = cursors.verify(made)
            old = cursors.sign([of_order, backward, value, post_id, snapshot, *words])
            position = feed.position_of(old, order)
            assert position == feed.position_of(made, order)
            page = read(place.connection, place.reader, replace(query, position=position)).page
            assert [row.id for row in page.rows] == (expected[22:30] if is_backward else expected[38:46])
            assert page.next_cursor is not None
            assert cursors.verify(page.next_cursor)[4] is None


@pytest.mark.parametrize("order", ["new", "old", "top", "hot"])
@pytest.mark.parametrize("hidden", [False, True])
def test_pages_with_skip_of_one_batch_are_parts_of_the_list(
    place: Place, make_person: Callable[..., Person], order: Order, hidden: bool
) -> None:
    listed = place.ids(order)
    owner = make_person()
    others = make_posts(place.connection, owner, 10)
    if hidden:  # Until the posts of the deleted account are removed.
        place.connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": owner.id})
        place.connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": owner.id})
    else:
        listed = place.ids(order)
        assert set(others) < set(listed)
    token = access_tokens.verify(place.reader.token)
    queries = [
        feed.PageQuery(order, limit, skip=skip)
        for limit, skip in ((10, 0), (1, 1), (100, 3), (7, len(listed) - 5), (7, len(listed)), (7, 890))
    ]

    pages = feed.read(place.connection, [feed.PageRequest(token, query) for query in queries])

    for query, response in zip(queries, pages, strict=True):
        assert isinstance(response, feed.PageResponse)
        end = query.skip + query.limit
        assert [row.id for row in response.page.rows] == listed[query.skip : end]
        assert (response.page.next_cursor is not None) == (end < len(listed))
        assert (response.page.previous_cursor is not None) == (0 < query.skip < len(listed))


def test_own_vote_taken_back_and_cast_again_is_not_met_twice(place: Place) -> None:
    query = place.query("voted", 10)
    at_first = place.ids("voted")
    forwards = walk(place.connection, place.reader, query)
    again = {"post_ids": at_first[15:25], "reader": place.reader.id}

    def happen() -> None:
        place.connection.execute(text("DELETE FROM votes WHERE user_id = :reader AND post_id = ANY (:post_ids)"), again)
        place.connection.execute(text("INSERT INTO votes (post_id, user_id) SELECT unnest(:post_ids), :reader"), again)
        again["post_ids"] = []

    pages = iter(range(100))
    backwards = walk(
        place.connection,
        place.reader,
        query,
        begin=forwards.last,
        is_backward=True,
        between=lambda: happen() if next(pages) == len(forwards.pages) - 4 else None,
    )
    assert len(backwards.ids) == len(set(backwards.ids))
    assert set(at_first) - set(at_first[15:25]) <= {*backwards.ids, *(row.id for row in forwards.last.rows)}


def test_hot_decays_by_age_and_nothing_is_rewritten(place: Place) -> None:
    versions_of_rows = "SELECT xmin::text || ' ' || post_id FROM post_stats"
    before = rows(place.connection, versions_of_rows)
    older, newer = rows(
        place.connection,
        """
        INSERT INTO posts (owner_id, title, content, created_at) VALUES
            (:reader, 'older', 'x', now() - interval '1 day'), (:reader, 'newer', 'x', now()) RETURNING id
        """,
        reader=place.reader.id,
    )

    def hottest_with_votes(for_older: int, for_newer: int) -> int:
        """The post at the top of the list."""
        place.connection.execute(text("DELETE FROM votes WHERE post_id IN (:a, :b)"), {"a": older, "b": newer})
        for post_id, number in ((older, for_older), (newer, for_newer)):
            statement = text("INSERT INTO votes (post_id, user_id) SELECT :post_id, unnest(CAST(:voters AS bigint[]))")
            place.connection.execute(statement, {"post_id": post_id, "voters": voters[:number]})
        first, second = (row.id for row in read(place.connection, place.reader, place.query("hot", 2)).page.rows)
        assert {first, second} == {older, newer}
        return int(first)

    voters = make_voters(place.connection, 90)
    # A day weighs as much as a factor of 83 in (one more than the) votes.
    assert hottest_with_votes(0, 0) == newer
    assert hottest_with_votes(80, 0) == newer
    assert hottest_with_votes(85, 0) == older
    assert hottest_with_votes(90, 1) == newer
    assert set(before) <= set(rows(place.connection, versions_of_rows))
