"""The cost of the fast path's statements: no full scans, and no growth with the site.

The statements are those that the services send, with their parameters, and prepared where those are; each is explained
while it runs.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session

from app import models
from app.database.prepared import MAY_PREPARE
from app.models import User
from app.schemas.page import KeysetPage, page_of
from app.schemas.tag import TagSort
from app.security import access_tokens
from app.services import block, feed, follow, profile, tag, vote
from app.services.feed import search
from app.services.feed.pages import Order
from tests.figures import Figure
from tests.fixtures import Person
from tests.services.walking import make_posts, read, rows

LISTS: tuple[Order, ...] = ("new", "old", "top", "hot", "voted", "bookmarked")
OWN = {"voted", "bookmarked"}
HOT_TABLES = {
    *("posts", "votes", "post_stats", "users", "sessions", "comments", "comment_stats", "comment_votes"),
    *("tags", "post_tags", "tag_stats", "user_stats", "follows", "blocks", "bookmarks"),
}
MAX_GROWTH = 1.2
# In the middle of the reader's follows.
AFTER = KeysetPage("list", 10, 0, 1_000, datetime.now(UTC) - timedelta(minutes=2_000))


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
    def index_lookup_count(self) -> int:
        """Return how many entries of indexes were met or made: a search may meet several.

        A vote is in two indexes, and for `ON CONFLICT` one of them is first looked into.
        """
        found = sum(
            max(int(node["Actual Loops"]), int(node["Actual Loops"] * node["Actual Rows"]))
            for node in self.nodes
            if "Index" in node["Node Type"]
        )
        return found + sum(3 * int(node["Actual Rows"]) for node in self.nodes if node["Node Type"] == "ModifyTable")

    @property
    def most_rows(self) -> int:
        """The largest number of rows that one of its steps gave or threw away."""
        return max(rows_of(node) for node in self.nodes)

    @property
    def most_posts(self) -> int:
        """The largest number of posts that one of its steps took from the table."""
        return max((rows_of(node) for node in self.nodes if node.get("Relation Name") == "posts"), default=0)


def rows_of(node: dict[str, Any]) -> int:
    return int(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))


@contextmanager
def explained(engine: Engine) -> Iterator[list[Explained]]:
    """Explain every statement inside the block, in a transaction that is rolled back before it runs."""
    plans: list[Explained] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        preparation, separator, execution = statement.rpartition("; EXECUTE")
        with connection.connection.cursor() as cursor:
            if separator:
                cursor.execute(preparation.replace("%%", "%"))
                statement = f"EXECUTE{execution}"
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
        """Make this many more posts, users and votes; a few posts are votable by many.

        Analysed and vacuumed.
        """
        parameters = {"posts": posts, "users": users, "votes": votes_per_post, "reader": self.reader.id}
        # Where autovacuum met the table while it was tiny, foreign keys would read all of it for each new row.
        setting = {"options": "-c enable_seqscan=off"}
        statements = (
            """
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT email, email, 'x'
            FROM (SELECT n || '@' || gen_random_uuid() FROM generate_series(1, :users) AS n) AS made (email)
            """,
            """
            INSERT INTO sessions (user_id, expires_at) SELECT id, now() + interval '1 day' FROM users
            WHERE NOT EXISTS (SELECT FROM sessions WHERE user_id = users.id)
            """,
            """
            INSERT INTO posts (owner_id, title, content, created_at)
            SELECT owners.first + 1 + n % (owners.count - 1), 'title ' || n,
                'rare' || n + so_far.posts || ' common ' || repeat('word ', 20),
                now() - interval '1 minute' * (n % 100000)
            FROM generate_series(1, :posts) AS n, (SELECT min(id), count(*) FROM users) AS owners (first, count),
                (SELECT count(*) FROM posts) AS so_far (posts)
            """,
            """
            INSERT INTO votes (post_id, user_id, created_at)
            SELECT posts.id, voters.first + (posts.id * 7 + n * 13) % voters.count, posts.created_at
            FROM posts, generate_series(1, :votes) AS n, (SELECT min(id), count(*) FROM users) AS voters (first, count)
            WHERE n <= 1 + posts.id * posts.id % :votes
            ON CONFLICT DO NOTHING
            """,
            """
            INSERT INTO votes (post_id, user_id, created_at)
            SELECT id, :reader, created_at FROM posts WHERE id % 40 = 0 ON CONFLICT DO NOTHING
            """,
            """
            INSERT INTO bookmarks (post_id, user_id, created_at)
            SELECT id, :reader, created_at FROM posts WHERE id % 40 = 0
            UNION SELECT id, owner_id, created_at FROM posts ON CONFLICT DO NOTHING
            """,
            """
            INSERT INTO follows (follower_id, followee_id, created_at)
            SELECT pair.a, pair.b, now() - interval '1 minute' * n FROM (
                SELECT id AS a, first + (id * 7 + n * 13) % count AS b, n FROM users, generate_series(1, 5) AS n,
                    (SELECT min(id), count(*) FROM users) AS accounts (first, count)
                UNION ALL (SELECT :reader, id, id FROM users ORDER BY id LIMIT 5000)
                UNION ALL (SELECT id, :reader, id FROM users ORDER BY id LIMIT 5000)
            ) AS pair JOIN users ON users.id = pair.b
            WHERE pair.a <> pair.b ON CONFLICT DO NOTHING
            """,
            """
            INSERT INTO blocks (blocker_id, blocked_id)
            SELECT follower_id, followee_id FROM follows WHERE (follower_id + followee_id) % 3 = 0
            UNION (SELECT :reader, id FROM users WHERE id <> :reader ORDER BY id DESC LIMIT 20)
            ON CONFLICT DO NOTHING
            """,
            "VACUUM ANALYZE",
        )
        # Of an engine without the application's time limits.
        engine = create_engine(self.connection.engine.url, connect_args=setting, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement), parameters)
        engine.dispose()
        self.connection.execute(text("DISCARD PLANS"))

    def grow_tags(self, posts: int) -> None:
        """Make this many more posts with one tag that all have, and one of a tenth as many as there are posts.

        One of them has also the tag `one`, and a thousand the tag `thousand`.
        """
        statements = (
            "SET session_replication_role = replica",
            """
            INSERT INTO posts (owner_id, title, content, created_at, tags, search)
            SELECT :owner, 'title', 'content', now() - interval '1 minute' * n,
                ARRAY['popular', 't' || n % (:posts / 10)]
                    || CASE WHEN n = :posts THEN ARRAY['one', 'thousand']
                        WHEN n % (:posts / 1000) = 0 THEN ARRAY['thousand'] ELSE '{}'::text[] END,
                ''
            FROM generate_series(1, :posts) AS n
            """,
            """
            INSERT INTO post_stats (post_id, votes, published, created_at)
            SELECT id, id % 50, published, created_at FROM posts ON CONFLICT DO NOTHING
            """,
            "INSERT INTO tags (name) SELECT DISTINCT unnest(tags) FROM posts ON CONFLICT DO NOTHING",
            """
            INSERT INTO post_tags (post_id, tag_id, published, created_at)
            SELECT posts.id, tags.id, published, created_at
            FROM posts CROSS JOIN unnest(posts.tags) AS tag (name) JOIN tags USING (name) ON CONFLICT DO NOTHING
            """,
            "DELETE FROM tag_stats",
            "INSERT INTO tag_stats (tag_id, posts) SELECT tag_id, count(*) FROM post_tags GROUP BY tag_id",
            "VACUUM ANALYZE",
        )
        engine = create_engine(self.connection.engine.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(
                    text(statement), {"posts": posts, "owner": self.reader.id} if ":" in statement else {}
                )
        engine.dispose()
        self.connection.execute(text("DISCARD PLANS"))

    def query(self, order: Order, **parameters: Any) -> feed.PageQuery:
        reader_id = self.reader.id if order in OWN else None
        return feed.PageQuery(order, 10, reader_id=reader_id, **parameters)

    def deep(self, order: Order, *, is_backward: bool = False) -> feed.PageQuery:
        """The page that follows a cursor from the middle of the list, or precedes it."""
        number = 500 if order not in OWN else 100
        page = read(self.connection, self.reader, self.query(order, skip=number)).page
        cursor = page.previous_cursor if is_backward else page.next_cursor
        assert cursor is not None
        return replace(self.query(order), position=feed.position_of(cursor, order))

    def explain(self, query: feed.PageQuery | feed.PostQuery) -> list[Explained]:
        with explained(self.engine) as plans:
            read(self.connection, self.reader, query)
        return plans

    def explain_tags(self, sort: TagSort, prefix: str) -> list[Explained]:
        with explained(self.engine) as plans, Session(self.connection) as db:
            caller = models.User(id=self.reader.id)
            tags = tag.list_tags(db, caller, prefix=prefix, sort=sort, limit=10, cursor=None).tags
        assert len(tags) == 10
        return plans

    def explain_people(self, ask: Callable[[Session, User], object]) -> list[Explained]:
        """Explain what a request of the reader about people does."""
        with Session(self.connection) as db, explained(self.engine) as plans:
            reader = db.get(User, self.reader.id)
            assert reader is not None
            ask(db, reader)
        return plans

    def explain_deep(self, order: Order, *, is_backward: bool) -> list[Explained]:
        return self.explain(self.deep(order, is_backward=is_backward))

    def explain_votes(self, post_ids: list[int]) -> list[Explained]:
        token = access_tokens.verify(self.reader.token)
        with explained(self.engine) as plans:
            vote.cast(self.connection, [vote.Ballot(token, post_id, is_for=True) for post_id in post_ids])
        return plans


@pytest.fixture
def site(database: Engine, connection: Connection, person: Person) -> Iterator[Site]:
    make_posts(connection, person, 20)
    connection.execute(text("UPDATE posts SET created_at = now() - interval '3 days'"))  # On no first page.
    # As the connections of the queues are.
    connection.execute(text("SET plan_cache_mode = force_generic_plan"))
    yield Site(database, connection.execution_options(**{MAY_PREPARE: True}), person)
    connection.execute(text("RESET plan_cache_mode"))
    # Faster than DELETE, which looks up the votes of each post, by minutes.
    connection.execute(text("TRUNCATE users, posts, tags CASCADE"))


def shown(plans: list[Explained]) -> str:
    """Return the steps of EXPLAIN in short."""

    def lines(node: dict[str, Any], depth: int) -> Iterator[str]:
        names = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Plan Rows", "Actual Rows")
        yield "  " * depth + ", ".join(str(node[name]) for name in (*names, "Actual Loops") if name in node)
        for inner in node.get("Plans", []):
            yield from lines(inner, depth + 1)

    return "\n".join(f"{plan.statement}\n" + "\n".join(lines(plan.plan, 1)) for plan in plans)


def hot_requests(site: Site, remainder: int = 1) -> dict[str, Callable[[], list[Explained]]]:
    """Return functions that explain each kind of hot request, by its name.

    Votes are for posts whose id has this remainder by 40.
    """
    (newest,) = rows(site.connection, "SELECT max(id) FROM posts")
    others = rows(site.connection, f"SELECT id FROM posts WHERE id % 40 = {remainder} ORDER BY id DESC LIMIT 20")
    requests: dict[str, Callable[[], list[Explained]]] = {
        "one post": lambda: site.explain(feed.PostQuery(newest)),
        "posts of one owner": lambda: site.explain(site.query("new", owner_id=site.reader.id)),
        "one vote": lambda: site.explain_votes(others[:1]),
        "twenty votes": lambda: site.explain_votes(others),
    }
    page = page_of("list", limit=10, cursor=None)
    last_id = site.connection.scalar(text("SELECT max(id) FROM users"))
    people: dict[str, Callable[[Session, User], object]] = {
        "followers": lambda db, reader: follow.list_followers(db, reader.id, page),
        "followers after a cursor": lambda db, reader: follow.list_followers(db, reader.id, AFTER),
        "followed users": lambda db, reader: follow.list_following(db, reader.id, page),
        "followed users after a cursor": lambda db, reader: follow.list_following(db, reader.id, AFTER),
        "blocks": lambda db, reader: block.list_own(db, reader, page),
        "profile": lambda db, reader: profile.get(db, last_id, reader),
        "profile by username": lambda db, reader: profile.get_by_username(db, f"user{last_id}", reader),
        "search of users": lambda db, _: profile.search(db, "user1", 10),
    }
    for name, ask in people.items():
        requests[name] = partial(site.explain_people, ask)
    for order in LISTS:
        requests[f"first page of {order}"] = lambda order=order: site.explain(site.query(order))  # type: ignore[misc]
        for is_backward in (False, True):
            name = f"page {'before' if is_backward else 'after'} a cursor of {order}"
            requests[name] = partial(site.explain_deep, order, is_backward=is_backward)
    return requests


def measured(site: Site) -> dict[str, list[Explained]]:
    """Explain each kind twice and keep the second: at first a server process also reads the catalogues."""
    for explain in hot_requests(site, remainder=2).values():
        explain()
    return {name: explain() for name, explain in hot_requests(site).items()}


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
    site.grow(posts=8_000, users=2_000, votes_per_post=8)
    small = measured(site)
    site.grow(posts=72_000, users=18_000, votes_per_post=8)
    large = measured(site)
    grown = {}
    for name, plans in small.items():
        before, after = (sum(plan.buffer_count for plan in some) for some in (plans, large[name]))
        print(f"{name:22} {before:6} {after:6} {after / before:5.2f}")  # noqa: T201 - shown with -s.
        # Where more than that, then for no other reason than that the indexes are one level deeper.
        if after > MAX_GROWTH * before and after - before > sum(plan.index_lookup_count for plan in large[name]):
            grown[name] = (before, after, shown(large[name]))
    assert not grown


@pytest.mark.slow
@pytest.mark.parametrize("order", ["top", "hot"])
def test_votes_since_a_traversal_began_do_not_make_its_pages_cost_more(site: Site, order: Order) -> None:
    site.grow(posts=20_000, users=2_000, votes_per_post=8)
    query = site.deep(order)
    site.explain(query)
    (before,) = site.explain(query)

    site.connection.execute(
        text("""
            INSERT INTO votes (post_id, user_id)
            SELECT posts.id, users.id FROM posts, (SELECT id FROM users ORDER BY id DESC LIMIT 3) AS users
            ON CONFLICT DO NOTHING
        """)
    )
    site.connection.execute(text("VACUUM ANALYZE post_stats"))
    (after,) = site.explain(query)

    assert after.buffer_count <= MAX_GROWTH * before.buffer_count + after.index_lookup_count, shown([before, after])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["new", "top"])
def test_a_search_touches_few_posts_however_rare_or_common_its_words_are(site: Site, order: Order) -> None:
    site.grow(posts=20_000, users=20_000, votes_per_post=2)
    most_posts = {
        "rare11111": 1,
        "rare11111 common": 1,
        "nowhere": 0,
        "rare1111": 20,  # With what it may still become: rare11110 to rare11119, and rare1111.
        "rare111": 200,
        "word": search.MAX_MATCHES + 1,
        "comm": search.MAX_MATCHES + 1,
        "-rare11111": search.MAX_MATCHES + 1,
    }
    touched = {}
    for words, most in most_posts.items():
        plans = site.explain(site.query(order, search=words))
        if max(plan.most_posts for plan in plans) > most + 50:
            touched[words] = shown(plans)
    assert not touched, "\n\n".join(touched.values())


@pytest.mark.slow
def test_ten_times_the_posts_cost_a_search_no_more_buffers(site: Site, figure: Figure) -> None:
    written = {"tallest skyscrapers": "free wi-fi in 東京タワー", "mail": "bob@example.com and covid-19"}
    for title, content in written.items():
        site.connection.execute(
            text("INSERT INTO posts (title, content, owner_id) VALUES (:title, :content, :id)"),
            {"title": title, "content": content, "id": site.reader.id},
        )
    # Words of one post, also next to words of all posts; parts of words; words of no post.
    searches = (
        '"rare7777"', "rare7777 common", "wi-f", "bob@example", "covid-19", "京タワ", "京", "scrap", "scrap tall",
        "nowhere",
    )  # fmt: skip

    def cost() -> dict[str, int]:
        for words in searches:
            site.explain(site.query("new", search=words))
        return {
            words: sum(plan.buffer_count for plan in site.explain(site.query("new", search=words)))
            for words in searches
        }

    site.grow(posts=8_000, users=2_000, votes_per_post=1)
    small = cost()
    site.grow(posts=72_000, users=18_000, votes_per_post=1)
    large = cost()
    for words, before in small.items():
        figure(f"blocks of a search for {words} among 8,000 and 80,000 posts: {before}, {large[words]}")
    # The indexes are one level deeper.
    assert {words: (small[words], large[words]) for words in searches if large[words] > 1.2 * small[words] + 12} == {}


def tag_requests(site: Site, name: str) -> dict[str, Callable[[], list[Explained]]]:
    """Return functions that explain each kind of request for a tag's posts, and for tags, by its name."""
    middle = datetime.now(UTC) - timedelta(days=1)
    queries = {
        "first page": site.query("new", tag=name),
        "before a time": site.query("new", tag=name, created_before=middle),
    }
    for is_backward in (False, True):
        page = read(site.connection, site.reader, site.query("new", tag=name, skip=300)).page
        cursor = page.previous_cursor if is_backward else page.next_cursor
        assert cursor is not None
        query = replace(site.query("new", tag=name), position=feed.position_of(cursor, "new"))
        queries[f"page {'before' if is_backward else 'after'} a cursor"] = query
    requests: dict[str, Callable[[], list[Explained]]] = {
        of: partial(site.explain, query) for of, query in queries.items()
    }
    lists: tuple[tuple[TagSort, str], ...] = (("popular", ""), ("name", ""), ("name", "t1"), ("popular", "t12"))
    for sort, prefix in lists:
        requests[f"tags by {sort} {prefix}"] = partial(site.explain_tags, sort, prefix)
    return requests


@pytest.mark.slow
def test_ten_times_the_posts_and_tags_cost_no_more_buffers(site: Site) -> None:
    def costs() -> dict[str, list[Explained]]:
        for explain in tag_requests(site, "popular").values():
            explain()
        return {name: explain() for name, explain in tag_requests(site, "popular").items()}

    site.grow_tags(posts=4_000)
    small = costs()
    site.grow_tags(posts=36_000)
    large = costs()
    grown = {}
    for name, plans in small.items():
        before, after = (sum(plan.buffer_count for plan in some) for some in (plans, large[name]))
        print(f"{name:28} {before:6} {after:6}")  # noqa: T201 - shown with -s.
        # The tags that begin with `t12` are ten times as many, and are all looked up.
        is_bounded = name == "tags by popular t12"
        if after > MAX_GROWTH * before and after - before > sum(plan.index_lookup_count for plan in large[name]):
            grown[name] = (before, after, shown(large[name]))
        assert is_bounded or max(plan.most_rows for plan in large[name]) <= 200, shown(large[name])
    assert not grown, "\n".join(plans for *_, plans in grown.values())


@pytest.mark.slow
@pytest.mark.parametrize("posts", [40_000, 1_000_000])
def test_a_page_of_a_tag_touches_as_many_blocks_for_few_posts_as_for_many(
    site: Site, posts: int, figure: Figure
) -> None:
    site.grow_tags(posts=posts)
    blocks: dict[str, dict[int, int]] = {}
    for name, of_tag in (("one", 1), ("thousand", 1_000), ("popular", posts)):
        requests: dict[str, Callable[[], list[Explained]]]
        requests = {"first page": partial(site.explain, site.query("new", tag=name))}
        if of_tag > 1:
            requests = {what: explain for what, explain in tag_requests(site, name).items() if "tags by" not in what}
        for what, explain in requests.items():
            explain()
            plans = explain()
            assert max(plan.most_rows for plan in plans) <= 200, shown(plans)
            blocks.setdefault(what, {})[of_tag] = sum(plan.buffer_count for plan in plans)
    for what, found in blocks.items():
        figure(f"{what} of a tag, blocks by the number of its posts: {found}")
        *_, few, many = found.values()
        # Each of the ten posts is one look-up in indexes that are equal for both.
        assert many <= MAX_GROWTH * few, found
    assert blocks["first page"][1] <= blocks["first page"][posts]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["new", "top", "hot"])
def test_posts_of_a_rare_tag_are_found_by_its_index_in_every_order(site: Site, order: Order) -> None:
    site.grow_tags(posts=20_000)
    for query in (site.query(order, tag="t7"), site.query("new", tag="t7", owner_id=site.reader.id)):
        plans = site.explain(query)
        assert max(plan.most_posts for plan in plans) <= 100, shown(plans)
        assert max(plan.most_rows for plan in plans) <= 200, shown(plans)
