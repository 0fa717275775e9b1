"""Data sets: the benchmark's own embedded PostgreSQL with the same data in two sizes, created once."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg2
from sqlalchemy import URL

from app.config import LOCAL_FOLDER
from app.dev import postgres
from app.security import access_tokens, passwords
from bench.environment import PYTHON, ROOT, WORK, BenchError, for_children
from bench.scenarios import SIZES, Size, SizeName

FOLDER = LOCAL_FOLDER / "bench-postgres"


# Readers are users of the data set who have votes. Voters are extra users who vote only during runs, so that the votes
# of a run are easy to remove. The number of voters has few divisors (see lua/vote.lua).
READER_COUNT = 1_000
# Readers of home pages, and the number of users whom these follow, as nearly as users of the data set do.
HOME_READER_COUNT = 1_000
HOME_FOLLOWS = 100
VOTER_COUNT = 3_998
PASSWORD = "benchmark-password-7235"
# More posts than any run votes on. More would only slow down the start of the load generator.
MAX_POSTS_IN_FILE = 200_000

GIGABYTE = 1 << 30
READY_SECONDS = 600


def server_options() -> dict[str, str]:
    """Return common tuning for a PostgreSQL of this size.

    Durability settings keep their default: on.
    """
    memory = psutil.virtual_memory().total
    return {
        "shared_buffers": f"{min(memory // 4, 4 * GIGABYTE) // 1024}kB",
        "effective_cache_size": f"{memory // 2 // 1024}kB",
        "maintenance_work_mem": "256MB",
        "random_page_cost": "1.1",
        "max_connections": "500",
        # Checkpoints happen between runs, not at a random time during one.
        "max_wal_size": "8GB",
        "checkpoint_timeout": "30min",
    }


@dataclass(frozen=True)
class Voter:
    """An account that votes during runs, and its session."""

    user_id: int
    session_id: int


class Dataset:
    """One data set, and the files for load generators: readers, voters, posts."""

    def __init__(self, name: SizeName, url: URL, folder: Path | None = None) -> None:
        self.name = name
        self.address = url
        self.folder = folder or WORK / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.reader_tokens = self._issue("bench reader")
        self.home_tokens = self._issue("bench home reader")
        voter_tokens = self._issue("bench voter")
        self.voters = [Voter(*row) for row in self.rows(f"{_PEOPLE} ORDER BY user_id", ("bench voter",))]
        self.post_ids = [
            post_id
            for (post_id,) in self.rows(
                "SELECT id FROM posts WHERE published ORDER BY hashint8(id) LIMIT %s", (MAX_POSTS_IN_FILE,)
            )
        ]
        ((self.post_count,),) = self.rows("SELECT count(*) FROM posts WHERE published")
        self.readers_file = self.write("readers", self.reader_tokens)
        self.home_readers_file = self.write("home-readers", self.home_tokens)
        self.voters_file = self.write("voters", voter_tokens)
        self.posts_file = self.write("posts", [str(post_id) for post_id in self.post_ids])
        # A post in the middle, which is neither first nor last in any index.
        self.hot_post_id = sorted(self.post_ids)[len(self.post_ids) // 2]
        self.hot_post_file = self.write("hot-post", [str(self.hot_post_id)])
        emails = self.rows("SELECT email FROM users WHERE id = ANY (%s)", ([voter.user_id for voter in self.voters],))
        self.emails_file = self.write("emails", [email for (email,) in emails])

    @property
    def url(self) -> str:
        """The URL in the form that every driver accepts."""
        return _as_text(self.address)

    def write(self, name: str, lines: list[str]) -> Path:
        """A file for a load generator."""
        path = self.folder / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A psycopg2 connection in autocommit."""
        with _connected(self.address) as connection:
            yield connection

    def rows(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    def execute(self, *statements: str) -> None:
        with self.connection() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    @property
    def voters_are_between(self) -> str:
        """SQL condition on votes that were cast during a run."""
        return f"user_id BETWEEN {self.voters[0].user_id} AND {self.voters[-1].user_id}"

    def count_votes_of_runs(self, table: Literal["votes", "comment_votes"]) -> int:
        ((count,),) = self.rows(f"SELECT count(*) FROM {table} WHERE {self.voters_are_between}")
        return int(count)

    def forget_votes_of_runs(self) -> None:
        """Restore the data, and vacuum so that the next contestant finds no dead rows."""
        self.execute(
            f"DELETE FROM votes WHERE {self.voters_are_between}",
            f"DELETE FROM comment_votes WHERE {self.voters_are_between}",
            "DELETE FROM sessions WHERE coalesce(user_agent, '')"
            " NOT IN ('bench reader', 'bench home reader', 'bench voter')",
            "VACUUM (ANALYZE) post_stats",
            "VACUUM (ANALYZE) comment_stats",
            "VACUUM votes",
            "VACUUM comment_votes",
            "VACUUM sessions",
        )

    def warm(self) -> None:
        """Read everything that runs use into memory, because disk reads would slow down the larger data set."""
        self.execute(
            # By index, because PostgreSQL soon evicts pages of a sequential scan.
            "SET enable_seqscan = off",
            "SET enable_bitmapscan = off",
            "SET max_parallel_workers_per_gather = 0",
            "SELECT sum(length(content)) FROM posts WHERE id > 0",
            "SELECT sum(length(email)) FROM users WHERE id > 0",
            "SELECT sum(votes) FROM post_stats WHERE post_id > 0",
            "SELECT count(created_at) FROM votes WHERE post_id > 0",
            "SELECT count(*) FROM sessions WHERE id > 0",
            "SELECT count(created_at) FROM post_tags WHERE tag_id > 0",
            "SELECT count(parent_id) FROM comments WHERE post_id > 0",
            "SELECT sum(length(content)) FROM comments WHERE id > 0",
            "SELECT sum(votes) FROM comment_stats WHERE comment_id > 0",
            "SELECT count(votes) FROM comment_stats WHERE post_id > 0",
            "SELECT count(followee_id) FROM follows WHERE follower_id > 0",
            "SELECT count(created_at) FROM posts WHERE owner_id > 0",
        )

    def miscounted_posts(self) -> int:
        """Count the posts voted on in runs whose vote count differs from their votes."""
        ((count,),) = self.rows(
            "SELECT count(*) FROM post_stats"
            f" WHERE post_id IN (SELECT post_id FROM votes WHERE {self.voters_are_between} UNION SELECT %s)"
            " AND votes <> (SELECT count(*) FROM votes WHERE votes.post_id = post_stats.post_id)",
            (self.hot_post_id,),
        )
        return int(count)

    def miscounted_comments(self) -> int:
        """Count the comments voted on in runs whose vote count differs from their votes."""
        ((count,),) = self.rows(
            "SELECT count(*) FROM comment_stats"
            f" WHERE comment_id IN (SELECT comment_id FROM comment_votes WHERE {self.voters_are_between})"
            " AND votes <> (SELECT count(*) FROM comment_votes AS cast_votes"
            " WHERE cast_votes.comment_id = comment_stats.comment_id)"
        )
        return int(count)

    def _issue(self, kind: str) -> list[str]:
        return [access_tokens.issue(user, session, timedelta(days=1)) for user, session in self.rows(_PEOPLE, (kind,))]


_PEOPLE = "SELECT user_id, id AS session_id FROM sessions WHERE user_agent = %s"


@contextmanager
def server() -> Iterator[URL]:
    """Run the benchmark's PostgreSQL during the block."""
    with postgres.running(FOLDER, options=server_options()) as url:
        yield url


def open_dataset(server_url: URL, name: SizeName) -> Dataset:
    """Open the data set: create it if it is missing, migrate, restore and warm it."""
    size = SIZES[name]
    url = server_url.set(database=size.database)
    if not _exists(server_url, size.database):
        _make(server_url, size)
    _run("alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head", url=url, is_quiet=True)
    dataset = Dataset(name, url)
    if not dataset.home_tokens:  # It is of a release without home pages.
        _add_follows(url, size)
        dataset = Dataset(name, url)
    dataset.forget_votes_of_runs()
    dataset.warm()
    return dataset


def remove_datasets(server_url: URL) -> None:
    """Drop the data sets, so that the next run recreates them."""
    for size in SIZES.values():
        _administer(server_url, f"DROP DATABASE IF EXISTS {size.database} WITH (FORCE)")


def _make(server_url: URL, size: Size) -> None:
    """Create a data set under a temporary name, so that an incomplete one is never used."""
    unfinished = f"{size.database}_unfinished"
    url = server_url.set(database=unfinished)
    print(f"Creating {size.posts:,} posts with {size.votes:,} votes and {size.follows:,} follows, only once")
    _administer(server_url, f"DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)", f"CREATE DATABASE {unfinished}")
    _run("alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head", url=url, is_quiet=True)
    fill(url, size)
    _administer(server_url, "CHECKPOINT", f"ALTER DATABASE {unfinished} RENAME TO {size.database}")


def fill(url: URL, size: Size) -> None:
    """Add the rows of a data set to a migrated database."""
    numbers = {"--users": size.users, "--posts": size.posts, "--votes": size.votes, "--follows": 0}
    _seed(url, numbers)
    _add_people(url)
    _add_follows(url, size)


def _add_follows(url: URL, size: Size) -> None:
    """Add follows, and sessions for readers of home pages."""
    _seed(url, {"--users": 0, "--posts": 0, "--votes": 0, "--follows": size.follows})
    with _connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO sessions (user_id, expires_at, user_agent)
            SELECT id, now() + interval '10 years', 'bench home reader' FROM users JOIN user_stats ON user_id = id
            WHERE is_active AND following > 0 ORDER BY abs(following - %s), id LIMIT %s
            """,
            (HOME_FOLLOWS, HOME_READER_COUNT),
        )
        cursor.execute("VACUUM (ANALYZE) sessions")


def _seed(url: URL, numbers: Mapping[str, int]) -> None:
    # Peers show no pictures.
    numbers = {**numbers, "--pictures": 0, "--reports": 0}
    words = [word for name, number in numbers.items() for word in (name, str(number))]
    _run("app", "seed", *words, "--yes", url=url)


def _add_people(url: URL) -> None:
    """Add voters, and sessions for voters and readers.

    Ids of voters are consecutive, as pgbench requires.
    """
    with _connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT email, email, %s FROM (SELECT 'voter' || n || '@example.com' FROM generate_series(1, %s) AS n)
                AS voter (email)
            """,
            (passwords.hash_password(PASSWORD), VOTER_COUNT),
        )
        cursor.execute(
            """
            INSERT INTO sessions (user_id, expires_at, user_agent)
            SELECT id, now() + interval '10 years', 'bench reader' FROM users
            WHERE is_active AND id <= (SELECT max(id) FROM users) - %s ORDER BY id LIMIT %s
            """,
            (VOTER_COUNT, READER_COUNT),
        )
        cursor.execute(
            """
            INSERT INTO sessions (user_id, expires_at, user_agent)
            SELECT id, now() + interval '10 years', 'bench voter' FROM users
            WHERE id > (SELECT max(id) FROM users) - %s ORDER BY id
            """,
            (VOTER_COUNT,),
        )
        cursor.execute("VACUUM (ANALYZE)")


def _exists(server_url: URL, database: str) -> bool:
    with _connected(server_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
        return cursor.fetchone() is not None


def _administer(server_url: URL, *statements: str) -> None:
    with _connected(server_url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def _connected(url: URL) -> Iterator[Any]:
    with closing(psycopg2.connect(_as_text(url))) as connection:
        connection.autocommit = True
        yield connection


def _as_text(url: URL) -> str:
    """Return the URL in the form that every driver accepts."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _run(module: str, *arguments: str, url: URL, is_quiet: bool = False) -> None:
    environment = for_children(_as_text(url))
    done = subprocess.run(
        [PYTHON, "-m", module, *arguments],
        env=environment,
        cwd=WORK,
        stderr=subprocess.PIPE if is_quiet else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = [line for line in (done.stderr or "").splitlines() if line.strip()]
        raise BenchError(
            f"`python -m {' '.join([module, *arguments])}` failed: {words[-1] if words else 'see what it said above'}"
        )
