"""What the hot statements cost: no table is read from end to end, and a larger site costs no more.

The statements are those that the services send, with their parameters; each is explained while it runs.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from app import tokens
from app.services import feed, vote
from app.services.feed.pages import Order
from tests.fixtures import Person
from tests.services.walking import read, rows

LISTS: tuple[Order, ...] = ("new", "old", "top", "hot", "voted")
HOT_TABLES = {"posts", "votes", "post_stats", "users", "sessions"}
MOST_GROWTH = 1.2


@dataclass
class Explained:
    """One statement, and what PostgreSQL did for it."""

    statement: str
    plan: dict[str, Any]

    @property
    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.plan]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    @property
    def tables_read_through(self) -> set[str]:
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"} & HOT_TABLES

    @property
    def buffer_count(self) -> int:
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])

    @property
    def most_rows(self) -> float:
        """The largest number of rows that one of its steps gave or threw away."""
        return max(
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in self.nodes
        )


@contextmanager
def explained(engine: Engine) -> Iterator[list[Explained]]:
    """Every statement that is run inside the block, explained in a transaction that is rolled back before it runs."""
    plans: list[Explained] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        with connection.connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            (plan,) = cursor.fetchone()
            cursor.execute("ROLLBACK")
        plans.append(Explained(statement, (plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", explain)


@dataclass
class Site:
    """A site with many posts and votes, made by sets."""

    engine: Engine
    connection: Connection
    reader: Person

    def grow(self, posts: int, users: int, votes_per_post: int) -> None:
        """Make this many more posts, users and votes; a few posts are votable by many. Analysed and vacuumed."""
        parameters = {"posts": posts, "users": users, "votes": votes_per_post, "reader": self.reader.id}
        for statement in (
            """
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT email, email, 'x'
            FROM (SELECT n || '@' || gen_random_uuid() FROM generate_series(1, :users) AS n) AS made (email)
            """,
            """
            INSERT INTO sessions (user_id, expires_at) SELECT id, now() + interval '1 day' FROM users
            """,
            """
            INSERT INTO posts (owner_id, title, content, created_at)
            SELECT owners.ids[1 + n % cardinality(owners.ids)], 'title ' || n,
                'rare' || n + so_far.posts || ' common ' || repeat('word ', 20), now() - interval '1 minute' * (n % 100000)
            FROM generate_series(1, :posts) AS n, (SELECT array_agg(id) FROM users) AS owners (ids),
                (SELECT count(*) FROM posts) AS so_far (posts)
            """,
            """
            INSERT INTO votes (post_id, user_id, created_at)
            SELECT posts.id, voters.ids[1 + (posts.id * 7 + n * 13) % cardinality(voters.ids)], posts.created_at
            FROM posts, generate_series(1, :votes) AS n, (SELECT array_agg(id) FROM users) AS voters (ids)
            WHERE n <= 1 + posts.id * posts.id % :votes
            ON CONFLICT DO NOTHING
            """,
            """
            INSERT INTO votes (post_id, user_id, created_at)
            SELECT id, :reader, created_at FROM posts WHERE id % 40 = 0 ON CONFLICT DO NOTHING
            """,
        ):
            self.connection.execute(text(statement), parameters)
        # As after a while: what is counted was counted long ago.
        self.connection.execute(text("DELETE FROM post_stats_history"))
        self.connection.execute(text("VACUUM ANALYZE"))

    def query(self, order: Order, **parameters: Any) -> feed.PageQuery:
        voter_id = self.reader.id if order == "voted" else None
        return feed.PageQuery(order, 10, voter_id=voter_id, **parameters)

    def deep(self, order: Order) -> feed.PageQuery:
        """The page that follows a cursor from the middle of the list."""
        number = 500 if order != "voted" else 100
        page = read(self.connection, self.reader, self.query(order, skip=number)).page
        assert page.next_cursor is not None
        return replace(self.query(order), position=feed.position_of(page.next_cursor, order))

    def explain(self, query: feed.PageQuery | feed.PostQuery) -> list[Explained]:
        with explained(self.engine) as plans:
            read(self.connection, self.reader, query)
        return plans

    def explain_votes(self, post_ids: list[int]) -> list[Explained]:
        token = tokens.verify(self.reader.token)
        with explained(self.engine) as plans:
            vote.cast(self.connection, [vote.Ballot(token, post_id, is_for=True) for post_id in post_ids])
        return plans


@pytest.fixture
def site(database: Engine, connection: Connection, person: Person) -> Site:
    return Site(database, connection, person)


def shown(plans: list[Explained]) -> str:
    """The steps as EXPLAIN tells them, in short."""

    def lines(node: dict[str, Any], depth: int) -> Iterator[str]:
        names = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Plan Rows", "Actual Rows")
        yield "  " * depth + ", ".join(str(node[name]) for name in (*names, "Actual Loops") if name in node)
        for inner in node.get("Plans", []):
            yield from lines(inner, depth + 1)

    return "\n".join(f"{plan.statement}\n" + "\n".join(lines(plan.plan, 1)) for plan in plans)


def hot_requests(site: Site) -> dict[str, Callable[[], list[Explained]]]:
    """By name, each kind of hot request, explained."""
    (newest,) = rows(site.connection, "SELECT max(id) FROM posts")
    others = rows(site.connection, "SELECT id FROM posts WHERE id % 40 = 1 ORDER BY id DESC LIMIT 20")
    owner = rows(site.connection, "SELECT owner_id FROM posts ORDER BY id LIMIT 1 OFFSET 100")[0]
    requests: dict[str, Callable[[], list[Explained]]] = {
        "one post": lambda: site.explain(feed.PostQuery(newest)),
        "posts of one owner": lambda: site.explain(site.query("new", owner_id=owner)),
        "rare word": lambda: site.explain(site.query("new", search='"rare777"')),
        "common word": lambda: site.explain(site.query("new", search="comm")),
        "common word by votes": lambda: site.explain(site.query("top", search="comm")),
        "one vote": lambda: site.explain_votes(others[:1]),
        "twenty votes": lambda: site.explain_votes(others),
    }
    for order in LISTS:
        requests[f"first page of {order}"] = lambda order=order: site.explain(site.query(order))  # type: ignore[misc]
        requests[f"deep page of {order}"] = lambda order=order: site.explain(site.deep(order))  # type: ignore[misc]
    return requests


@pytest.mark.slow
def test_hot_statements_read_no_table_from_end_to_end(site: Site) -> None:
    site.grow(posts=20_000, users=20_000, votes_per_post=8)
    found = {}
    for name, explain in hot_requests(site).items():
        plans = explain()
        read_through = set().union(*(plan.tables_read_through for plan in plans))
        if read_through or max(plan.most_rows for plan in plans) > 200:
            found[name] = (read_through, shown(plans))
    assert not found, "\n\n".join(f"{name} reads {tables}:\n{plans}" for name, (tables, plans) in found.items())


@pytest.mark.slow
def test_ten_times_the_posts_and_votes_cost_no_more_buffers(site: Site) -> None:
    site.grow(posts=8_000, users=8_000, votes_per_post=8)
    small = {name: sum(plan.buffer_count for plan in explain()) for name, explain in hot_requests(site).items()}
    site.grow(posts=72_000, users=72_000, votes_per_post=8)
    large = {name: sum(plan.buffer_count for plan in explain()) for name, explain in hot_requests(site).items()}
    for name, count in small.items():
        print(f"{name:22} {count:6} {large[name]:6} {large[name] / count:5.2f}")  # noqa: T201 - shown with -s.
    grown = {name: (count, large[name]) for name, count in small.items() if large[name] > MOST_GROWTH * count}
    assert not grown
