"""Experiment: vote counts in `post_stats` compared with vote counts in `posts`.

Both designs get the same posts and the same votes, in batches as in the API, from two concurrent writers.

    python -m bench.experiments.counts postgresql://user:password@host/maintenance_database
"""

import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
from alembic.config import Config
from sqlalchemy import make_url

from alembic import command

POSTS, USERS, BATCH, WRITERS, ROUNDS, SECONDS = 200_000, 200_000, 32, 2, 5, 4.0
VOTES = 1_000_000

IN_POSTS = """
    DROP TRIGGER posts_stats_begin ON posts; DROP TRIGGER posts_stats_follow ON posts;
    DROP TABLE post_stats;
    ALTER TABLE posts ADD COLUMN votes integer NOT NULL DEFAULT 0,
        ADD COLUMN hot double precision NOT NULL GENERATED ALWAYS AS (hot_score(votes, created_at)) STORED;
    CREATE INDEX ON posts (votes, id) WHERE published;
    CREATE INDEX ON posts (hot, id) WHERE published;
    CREATE OR REPLACE FUNCTION change_vote_counts(post_ids bigint[], changes bigint[]) RETURNS void
    LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM posts WHERE id = ANY (post_ids) ORDER BY id FOR NO KEY UPDATE;
        UPDATE posts SET votes = posts.votes + change.n
        FROM unnest(post_ids, changes) AS change (post_id, n) WHERE posts.id = change.post_id;
    END $$;
"""
FILL = f"""
    INSERT INTO users (email, email_canonical, password_hash)
        SELECT i || '@example.com', i || '@example.com', 'x' FROM generate_series(1, {USERS}) i;
    INSERT INTO posts (owner_id, title, content, created_at)
        SELECT 1 + i % {USERS}, 'Title ' || i, repeat(md5(i::text) || ' ', 12), now() - i * interval '1 minute'
        FROM generate_series(1, {POSTS}) i;
"""
CAST = """
    INSERT INTO votes (post_id, user_id) SELECT * FROM unnest(%s::bigint[], %s::bigint[]) AS v (p, u)
    ORDER BY 1, 2 ON CONFLICT DO NOTHING
"""
PAGES = {
    "post_stats": """SELECT p.id, p.title, p.content, u.username, s.votes FROM posts p
        JOIN users u ON u.id = p.owner_id JOIN post_stats s ON s.post_id = p.id WHERE p.published""",
    "posts": """SELECT p.id, p.title, p.content, u.username, p.votes FROM posts p
        JOIN users u ON u.id = p.owner_id WHERE p.published""",
}
ORDERS = {
    "post_stats": {
        "new": "ORDER BY p.created_at DESC, p.id DESC",
        "top": "AND s.published ORDER BY s.votes DESC, s.post_id DESC",  # Its index is partial, too.
    },
    "posts": {"new": "ORDER BY p.created_at DESC, p.id DESC", "top": "ORDER BY p.votes DESC, p.id DESC"},
}


def main(server: str) -> None:
    """Create both designs, measure them in turn and print medians over the rounds."""
    url = make_url(server).set(drivername="postgresql+psycopg2")
    designs = {name: url.set(database=f"counts_in_{name}") for name in PAGES}
    for design in designs.values():
        _run(_dsn(url), f"DROP DATABASE IF EXISTS {design.database}", f"CREATE DATABASE {design.database}")
    for name, design in designs.items():
        config = Config("alembic.ini")
        config.attributes |= {"url": design, "configure_logging": False}
        command.upgrade(config, "head")
        _run(_dsn(design), (IN_POSTS if name == "posts" else "") + FILL, "VACUUM ANALYZE")
    results: dict[str, dict[str, list[float]]] = {name: {} for name in designs}
    for number in range(ROUNDS):
        for name, design in designs.items():
            for kind, posts in (("spread", range(1, POSTS + 1)), ("one post", range(number + 1, number + 2))):
                results[name].setdefault(f"votes/s, {kind}", []).append(_votes_per_second(_dsn(design), posts))
            for order, sql in ORDERS[name].items():
                results[name].setdefault(f"page by {order}, ms", []).append(
                    _page_milliseconds(_dsn(design), f"{PAGES[name]} {sql} LIMIT 11")
                )
    for name, design in designs.items():
        _cast_until(_dsn(design), VOTES)
        with psycopg2.connect(_dsn(design)) as connection:
            cursor = connection.cursor()
            tables = ("posts", "post_stats") if name == "post_stats" else ("posts",)
            cursor.execute("SELECT sum(pg_total_relation_size(t::regclass)) / 1e6 FROM unnest(%s) t", (list(tables),))
            results[name]["MB after the votes"] = [float(cursor.fetchone()[0])]  # type: ignore[index]
            cursor.execute("SELECT count(*) FROM votes")
            results[name]["votes cast"] = [float(cursor.fetchone()[0])]  # type: ignore[index]
    for measure in results["posts"]:
        cells = [f"{name}: {statistics.median(values[measure]):10.2f}" for name, values in results.items()]
        print(f"{measure:20}", *cells, sep="  ")


def _votes_per_second(dsn: str, posts: range) -> float:
    def write(_: int) -> int:
        with closing(psycopg2.connect(dsn)) as connection:
            connection.autocommit = True
            cursor, cast = connection.cursor(), 0
            stop = time.perf_counter() + SECONDS
            while time.perf_counter() < stop:
                pairs = {(random.choice(posts), random.randint(1, USERS)) for _ in range(BATCH)}
                cursor.execute(CAST, tuple(map(list, zip(*pairs, strict=True))))
                cast += cursor.rowcount
        return cast

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(write, range(WRITERS))) / SECONDS


def _cast_until(dsn: str, votes: int) -> None:
    """Cast votes until both designs have the same number, so that their sizes are comparable."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT count(*) FROM votes")
        left = votes - cursor.fetchone()[0]  # type: ignore[index]
        while left > 0:
            pairs = {(random.randint(1, POSTS), random.randint(1, USERS)) for _ in range(min(BATCH, left))}
            cursor.execute(CAST, tuple(map(list, zip(*pairs, strict=True))))
            left -= cursor.rowcount


def _page_milliseconds(dsn: str, sql: str) -> float:
    with psycopg2.connect(dsn) as connection:
        cursor = connection.cursor()
        times = []
        for _ in range(300):
            began = time.perf_counter()
            cursor.execute(sql)
            cursor.fetchall()
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def _run(dsn: str, *statements: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def _dsn(url: object) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)  # type: ignore[attr-defined, no-any-return]


if __name__ == "__main__":
    main(sys.argv[1])
