"""The cost of a home page: it depends on what a reader follows, up to a maximum, and not on the size of the site."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from app.database.prepared import MAY_PREPARE
from app.services import feed
from app.services.feed import home
from tests.figures import Figure
from tests.fixtures import Person
from tests.services.test_plans import MAX_GROWTH, Explained, Site, rows_of, shown
from tests.services.walking import read

MAX_FOLLOWED = 5_000
# Authors by place: those up to MAX_FOLLOWED write first, the others later, so that most follows write rarely.
GROW = (
    """
    INSERT INTO users (email, email_canonical, password_hash)
    SELECT n || '@made.example', n || '@made.example', 'x'
    FROM generate_series((SELECT count(*) FROM users), :users) AS n
    """,
    "SET session_replication_role = replica",
    """
    INSERT INTO posts (owner_id, title, content, created_at, tags, search)
    SELECT (SELECT min(id) FROM users) + 1 + place, 'title', 'content',
        now() - interval '1 second' * n - CASE WHEN place < :quiet THEN interval '1 year' ELSE interval '0' END,
        ARRAY['popular', 't' || n % 1000], ''
    FROM generate_series(1, :posts) AS n CROSS JOIN LATERAL (SELECT n * 7919 % :users AS place) AS author
    """,
    """
    INSERT INTO post_stats (post_id, votes, published, created_at)
    SELECT id, 0, published, created_at FROM posts ON CONFLICT DO NOTHING
    """,
    "INSERT INTO tags (name) SELECT DISTINCT unnest(tags) FROM posts ON CONFLICT DO NOTHING",
    "INSERT INTO tag_stats (tag_id) SELECT id FROM tags ON CONFLICT DO NOTHING",
    """
    INSERT INTO post_tags (post_id, tag_id, published, created_at)
    SELECT posts.id, tags.id, published, created_at
    FROM posts CROSS JOIN unnest(posts.tags) AS tag (name) JOIN tags USING (name) ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO follows (follower_id, followee_id)
    SELECT users.id, other.id FROM users CROSS JOIN LATERAL (
        SELECT id FROM users AS other WHERE id > users.id ORDER BY id LIMIT 5
    ) AS other ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO tag_follows (user_id, tag_id)
    SELECT users.id, tags.id FROM users JOIN tags ON tags.id % 1000 = users.id % 1000 ON CONFLICT DO NOTHING
    """,
    "VACUUM ANALYZE",
)
# No home page reads all of one of these. Here the others are empty.
LARGE = {"users", "posts", "post_stats", "tags", "post_tags", "follows", "tag_follows"}
FOLLOW = """
    INSERT INTO follows (follower_id, followee_id)
    SELECT :reader, id FROM users WHERE id <> :reader ORDER BY id {direction} LIMIT :count
"""
FOLLOW_TAGS = "INSERT INTO tag_follows (user_id, tag_id) SELECT :reader, id FROM tags ORDER BY id LIMIT :count"


@pytest.fixture
def site(database: Engine, connection: Connection, person: Person) -> Iterator[Site]:
    connection.execute(text("SET plan_cache_mode = force_generic_plan"))
    yield Site(database, connection.execution_options(**{MAY_PREPARE: True}), person)
    connection.execute(text("RESET plan_cache_mode"))
    connection.execute(text("TRUNCATE users, posts, tags CASCADE"))


def grow(site: Site, *, users: int, quiet: int, posts: int) -> None:
    """Make authors, of whom the first wrote a year ago, and more posts, each with a tag that all have."""
    engine = create_engine(site.connection.engine.url, isolation_level="AUTOCOMMIT")
    values = {"users": users, "quiet": quiet, "posts": posts}
    with engine.connect() as connection:
        for statement in GROW:
            connection.execute(text(statement), values if ":" in statement else {})
    engine.dispose()
    site.connection.execute(text("DISCARD PLANS"))


def follow(site: Site, users: int, *, tags: int = 0, of_newest: bool = False) -> None:
    """Let the reader follow this many of the quiet authors, or of the others, and tags, and nothing else."""
    values = {"reader": site.reader.id, "count": users}
    site.connection.execute(text("DELETE FROM follows WHERE follower_id = :reader"), values)
    site.connection.execute(text("DELETE FROM tag_follows WHERE user_id = :reader"), values)
    site.connection.execute(text(FOLLOW.format(direction="DESC" if of_newest else "")), values)
    site.connection.execute(text(FOLLOW_TAGS), values | {"count": tags})
    site.connection.execute(text("VACUUM follows, tag_follows"))


def explain_pages(site: Site, limit: int = 10) -> dict[str, Explained]:
    """Explain the first page, and those after and before a cursor. Each is read before, as the catalogues are."""
    query = feed.PageQuery("home", limit, reader_id=site.reader.id)
    first = read(site.connection, site.reader, query).page
    assert first.next_cursor is not None
    after = replace(query, position=feed.position_of(first.next_cursor, "home"))
    second = read(site.connection, site.reader, after).page
    assert second.previous_cursor is not None
    before = replace(query, position=feed.position_of(second.previous_cursor, "home"))
    plans = {}
    for name, each in (("first", query), ("after a cursor", after), ("before a cursor", before)):
        site.explain(each)
        (plans[name],) = site.explain(each)
    return plans


# Followed users and tags, and whether these users write now.
FOLLOWS = ((10, 0, False), (100, 0, False), (100, 20, True), (MAX_FOLLOWED, 1_000, False), (1_000, 0, True))


@pytest.mark.slow
def test_ten_times_the_posts_cost_a_home_no_more_buffers_and_no_table_is_read_through(
    site: Site, figure: Figure
) -> None:
    grow(site, users=6_500, quiet=MAX_FOLLOWED, posts=13_000)
    costs = {}
    for size in ("small", "large"):
        for users, tags, of_newest in FOLLOWS:
            follow(site, users, tags=tags, of_newest=of_newest)
            for name, plan in explain_pages(site).items():
                costs[size, users, tags, of_newest, name] = plan
                read_through = {node["Relation Name"] for node in plan.nodes if node["Node Type"] == "Seq Scan"}
                assert not read_through & LARGE, shown([plan])
        if size == "small":
            grow(site, users=6_500, quiet=MAX_FOLLOWED, posts=117_000)
    for (users, tags, of_newest), name in product(FOLLOWS, ("first", "after a cursor", "before a cursor")):
        before, after = (costs[size, users, tags, of_newest, name] for size in ("small", "large"))
        figure(
            f"blocks of a home of {users} users and {tags} tags, {name}, among 13,000 and 130,000 posts:"
            f" {before.buffer_count}, {after.buffer_count}"
        )
        # The indexes are one level deeper.
        allowed = MAX_GROWTH * before.buffer_count + after.index_lookup_count
        assert after.buffer_count <= allowed, shown([before, after])


@pytest.mark.slow
def test_home_of_many_who_write_now_reads_few_posts_however_many_they_are(site: Site) -> None:
    grow(site, users=6_500, quiet=0, posts=26_000)
    costs: dict[int, dict[str, Explained]] = {}
    for users in (500, MAX_FOLLOWED):
        follow(site, users, of_newest=True)
        costs[users] = explain_pages(site)
    for name, plan in costs[MAX_FOLLOWED].items():
        assert plan.buffer_count <= MAX_GROWTH * costs[500][name].buffer_count, shown([plan])
        assert plan.most_rows <= home.MAX_WALKED, shown([plan])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10, 100])
def test_worst_home_reads_one_entry_of_each_followed_user_and_tag_and_few_more(
    site: Site, limit: int, figure: Figure
) -> None:
    """The newest posts of the site are all of others, so they are read in vain."""
    grow(site, users=6_500, quiet=MAX_FOLLOWED, posts=26_000)
    follow(site, MAX_FOLLOWED, tags=0)
    for name, plan in explain_pages(site, limit).items():
        figure(f"rows of the worst home of {limit} posts, {name}: {plan.most_rows}")
        posts_of_authors = (limit + 1) ** 2
        assert plan.most_rows <= MAX_FOLLOWED + 1 + posts_of_authors, shown([plan])


@pytest.mark.slow
def test_home_of_a_tag_that_all_posts_have_reads_a_page_of_it(site: Site, make_post: Callable[..., int]) -> None:
    grow(site, users=100, quiet=0, posts=20_000)
    make_post(site.reader)
    site.connection.execute(
        text("INSERT INTO tag_follows (user_id, tag_id) SELECT :reader, id FROM tags WHERE name = 'popular'"),
        {"reader": site.reader.id},
    )
    for plan in explain_pages(site).values():
        read_rows = [rows_of(node) for node in plan.nodes if node.get("Relation Name") in {"posts", "post_tags"}]
        assert max(read_rows) <= 100, shown([plan])
