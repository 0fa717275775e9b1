"""`seeding.fill` on a real database, with small numbers."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from app.dev import seed as seeding
from app.dev.seed import Amounts, CannotSeed
from app.security import passwords
from app.services import recount
from tests.services.test_user_counts import WRONG

SMALL = Amounts(users=200, posts=500, votes=4_000, follows=2_000)


def fill(database: Engine, wanted: Amounts = SMALL, *, seed: int = 1) -> dict[str, int]:
    done: dict[str, int] = {}
    seeding.fill(
        database,
        wanted,
        seed=seed,
        password_hash=passwords.hash_password(seeding.PASSWORD),
        report=lambda what, count, _: done.update({what: count}),
    )
    return done


def counted(connection: Connection) -> tuple[int, ...]:
    return tuple(
        connection.execute(
            text("""
                SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM posts), (SELECT count(*) FROM votes),
                    (SELECT count(*) FROM follows)
            """)
        ).one()
    )


def wrong_counts(connection: Connection) -> int:
    """Return how many posts and accounts have a count that is not the number of its rows."""
    posts = connection.execute(
        text("""
            SELECT id FROM posts LEFT JOIN post_stats ON post_id = id
            WHERE votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE votes.post_id = posts.id)
        """)
    )
    return len(posts.all()) + len(connection.execute(WRONG).all())


def drawn(connection: Connection) -> list[tuple[object, ...]]:
    """Return what was drawn, with places instead of ids."""
    rows = connection.execute(
        text("""
            WITH people AS (SELECT id, row_number() OVER (ORDER BY id) AS place, email FROM users)
            SELECT title, content, published, tags, owner.place, split_part(owner.email, '.', 1),
                (
                    SELECT array_agg(voter.place ORDER BY voter.place)
                    FROM votes JOIN people AS voter ON voter.id = user_id WHERE post_id = posts.id
                )
            FROM posts JOIN people AS owner ON owner.id = owner_id ORDER BY posts.id
        """)
    )
    return [tuple(row) for row in rows]


def test_counts_equal_rows_and_the_requested_amounts(database: Engine, connection: Connection) -> None:
    assert fill(database) == {"people": 200, "posts": 500, "votes": 4_000, "follows": 2_000, "statistics": 9}

    assert counted(connection) == (200, 500, 4_000, 2_000)
    assert wrong_counts(connection) == 0


def test_comments_are_threads_with_right_counts(database: Engine, connection: Connection) -> None:
    assert fill(database, Amounts(users=200, posts=50, votes=0, comments=2_000))["comments"] == 2_000

    assert [batch for batch in recount.recount(is_repairing=False) if batch.wrong] == []
    shape = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE depth = 0), max(depth) BETWEEN 4 AND 32,
                (SELECT max(comments) > 10 * avg(comments) FROM post_stats),
                (SELECT count(*) > 500 AND max(votes) > 10 FROM comment_votes, comment_stats),
                bool_and(created_at <= now() AND created_at > (SELECT created_at FROM posts WHERE id = post_id)),
                (SELECT bool_and(reply.created_at > parent.created_at)
                    FROM comments AS reply JOIN comments AS parent ON parent.id = reply.parent_id)
            FROM comments
        """)
    ).one()
    assert 500 < shape[0] < 1_200
    assert tuple(shape[1:]) == (True, True, True, True, True)


def test_filling_twice_adds_more_without_conflict(database: Engine, connection: Connection) -> None:
    fill(database)
    fill(database)
    fill(database, Amounts(users=0, posts=0, votes=1_000))

    assert counted(connection)[:3] == (400, 1_000, 9_000)
    assert 2_000 < counted(connection)[3] <= 4_000  # What is there already is not replaced.
    assert wrong_counts(connection) == 0


def test_a_seed_draws_the_same_again_and_another_draws_otherwise(database: Engine, connection: Connection) -> None:
    draws = []
    for seed in (1, 1, 2):
        connection.execute(text("DELETE FROM posts"))
        connection.execute(text("DELETE FROM users"))
        fill(database, seed=seed)
        draws.append(drawn(connection))

    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_few_posts_and_few_people_have_most_votes(database: Engine, connection: Connection) -> None:
    fill(database)

    for key, least in (("post_id", 0.4), ("user_id", 0.2)):
        share = connection.scalar(
            text(f"""
                SELECT sum(n) FILTER (WHERE place <= 0.1 * total) / sum(n) FROM (
                    SELECT count(*) AS n, row_number() OVER (ORDER BY count(*) DESC) AS place,
                        count(*) OVER () AS total
                    FROM votes GROUP BY {key}
                ) AS counted
            """)
        )
        assert share is not None
        assert share > least


def test_few_people_have_most_followers_and_few_follow_most(database: Engine, connection: Connection) -> None:
    fill(database)

    for column in ("followers", "following"):
        counts = connection.scalars(text(f"SELECT {column} FROM user_stats ORDER BY 1 DESC")).all()
        assert sum(counts) == 2_000
        assert sum(counts[:50]) > 900
        assert counts[0] <= 199
    assert connection.scalar(text("SELECT max(following) FROM user_stats")) <= 100


def test_some_posts_are_drafts_and_drafts_have_no_votes(database: Engine, connection: Connection) -> None:
    fill(database)

    drafts = connection.scalar(text("SELECT count(*) FROM posts WHERE NOT published"))
    assert drafts is not None
    assert 1 <= drafts <= 50
    assert connection.scalar(text("SELECT count(*) FROM votes JOIN posts ON id = post_id WHERE NOT published")) == 0


def test_times_lie_in_the_last_two_years_and_in_order(database: Engine, connection: Connection) -> None:
    fill(database)

    assert connection.scalar(
        text("""
            SELECT bool_and(posts.created_at BETWEEN now() - interval '2 years 1 day' AND now()
                AND users.created_at < posts.created_at)
            FROM posts JOIN users ON users.id = owner_id
        """)
    )
    assert connection.scalar(
        text("""
            SELECT bool_and(votes.created_at BETWEEN posts.created_at AND now())
            FROM votes JOIN posts ON posts.id = post_id
        """)
    )


def test_texts_differ_and_keep_to_the_limits_of_the_api(database: Engine, connection: Connection) -> None:
    fill(database)

    row = connection.execute(
        text("""
            SELECT count(DISTINCT title) AS titles, count(DISTINCT content) AS contents, min(length(content)) AS least,
                max(length(content)) AS most, max(length(title)) AS longest_title FROM posts
        """)
    ).one()
    assert row.titles > 450
    assert row.contents > 450
    assert row.least > 10
    assert 200 < row.most < 40_000
    assert row.longest_title < 300


def test_it_leaves_every_trigger_enabled(database: Engine, connection: Connection) -> None:
    fill(database)

    assert connection.scalar(text("SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'")) == 0
    with database.connect() as pooled:
        assert pooled.scalar(text("SHOW session_replication_role")) == "origin"


def test_seeded_people_can_sign_in(client: TestClient, database: Engine) -> None:
    fill(database)

    answer = client.post("/login", data={"username": seeding.newest_address(database), "password": seeding.PASSWORD})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Amounts(users=0, posts=1, votes=0), "pass --users too"),
        (Amounts(users=2, posts=10, votes=1_000), "allow"),
        (Amounts(users=10, posts=0, votes=0, follows=26), "10 people allow 25 follows, not 26"),
    ],
)
def test_impossible_amounts_are_refused(
    database: Engine, connection: Connection, wanted: Amounts, message: str
) -> None:
    with pytest.raises(CannotSeed, match=message):
        fill(database, wanted)

    assert wrong_counts(connection) == 0


def test_rows_committed_before_a_stop_are_consistent(
    database: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "CHUNK_VOTES", 500)

    def stop(what: str, done: int, _total: int) -> None:
        if what == "votes" and done > 1_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seeding.fill(database, SMALL, seed=1, password_hash="-", report=stop)

    votes = counted(connection)[2]
    assert 1_000 < votes < 4_000
    assert wrong_counts(connection) == 0


def test_a_role_that_may_not_bypass_triggers_fills_as_well(database: Engine, connection: Connection) -> None:
    connection.execute(text("DROP ROLE IF EXISTS seeding_stranger"))
    connection.execute(text("CREATE ROLE seeding_stranger"))
    try:
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO seeding_stranger"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO seeding_stranger"))
        engine = create_engine(database.url, poolclass=NullPool)

        @event.listens_for(engine, "connect")
        def become_other_user(dbapi_connection: Any, _record: object) -> None:
            dbapi_connection.cursor().execute("SET ROLE seeding_stranger")
            dbapi_connection.commit()

        seeding.fill(engine, SMALL, seed=1, password_hash="-", report=lambda *_: None)
        assert counted(connection) == (200, 500, 4_000, 2_000)
        assert wrong_counts(connection) == 0
    finally:
        connection.execute(text("DROP OWNED BY seeding_stranger"))
        connection.execute(text("DROP ROLE seeding_stranger"))
