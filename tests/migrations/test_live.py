"""Migrations while the previous release serves: processes under load, rows in the tables, locks in the way.

Twice: with the example of docs/migrations.md, before which today's release is the release before; and with the newest
migration that there is, before which that was the commit without it.
"""

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, text

from alembic import command
from app.security import access_tokens
from tests.chaos.load import Answer, Answers, Client, press
from tests.figures import Figure
from tests.fixtures import Server, _server
from tests.migrations.conftest import ROOT, address, config_for, environment, revisions, run_alembic, version
from tests.migrations.lint import lint
from tests.programs import find_program
from tests.races.waiting import in_background, wait_until, wait_until_blocked

DOCUMENT = (ROOT / "docs" / "migrations.md").read_text()
MAX_WAIT_SECONDS = 2
SETTLING_SECONDS = 3
POSTS, PEOPLE = 12_000, 200

FILL = (
    f"""
        INSERT INTO users (email, email_canonical, password_hash)
        SELECT n || '@example.com', n || '@example.com', '' FROM generate_series(1, {PEOPLE}) AS n
    """,
    "INSERT INTO sessions (user_id, expires_at) SELECT id, now() + interval '1 day' FROM users",
    f"""
        INSERT INTO posts (owner_id, title, content)
        SELECT 1 + n % {PEOPLE}, 'title ' || n, repeat('word ', 1 + n % 90) FROM generate_series(1, {POSTS}) AS n
    """,
    f"""
        INSERT INTO votes (post_id, user_id)
        SELECT DISTINCT 1 + n * 7 % {POSTS}, 1 + n * 11 % {PEOPLE} FROM generate_series(1, 50000) AS n
    """,
    "ANALYZE",
)


@dataclass
class Load:
    """Users that read and write until the load is stopped, and their responses."""

    server: Server
    tokens: list[str]
    asks_readiness: bool = True
    answers: Answers = field(default_factory=Answers)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    async def _run(self) -> None:
        clients = [Client(self.server.url, token) for token in self.tokens]
        self.answers = await press(clients, self._ask, until=self._is_over.is_set)

    async def _ask(self, client: Client, number: int) -> Answer:
        turn = len(self.answers.all) + number
        post = f"/posts/{1 + turn * 7 % POSTS}"
        asked = (
            ("POST", "/posts", {"title": "new", "content": "a few words"}),
            ("PUT", f"{post}/vote", None),
            ("DELETE", f"{post}/vote", None),
            ("GET", post, None),
            ("GET", "/users/me", None),
            ("GET", "/posts?sort=top&limit=20", None),
            ("GET", "/posts", None),
            ("GET", "/readyz" if self.asks_readiness else "/livez", None),
        )
        await asyncio.sleep(0.02)  # It is to find what breaks, not what is slow.
        return await client.send(*asked[turn % len(asked)])

    def assert_no_request_was_disturbed(self, since: float, until: float) -> str:
        """Assert that no answer was an error, and that migrations delayed none for longer than their lock timeout."""
        assert set(self.answers.statuses) <= {200, 201}, self.answers.statuses
        usual = max(answer.seconds for answer in self.answers.all if answer.began_at + answer.seconds < since)
        longest = max(answer.seconds for answer in self.answers.all if since <= answer.began_at <= until)
        assert longest <= MAX_WAIT_SECONDS + usual
        return (
            f"{len(self.answers.all):,} requests, none failed; the longest took {longest:.1f} s behind blocked"
            f" migrations, {usual:.1f} s before"
        )


@pytest.fixture
def serve(url: URL, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server on the database: of today's release, or of that in another folder."""
    with ExitStack() as stack:

        def begin(root: Path = ROOT) -> Server:
            there = {"DATABASE_URL": address(url), "RATE_LIMITS_ENABLED": "false", "WORKERS": "2"}
            return stack.enter_context(_server(tmp_path, there, root))

        yield begin


def fill(connection: Connection) -> list[str]:
    """Insert rows as a site has them, and return tokens of some signed-in users."""
    for statement in FILL:
        connection.execute(text(statement))
    sessions = connection.execute(text("SELECT user_id, id FROM sessions ORDER BY id LIMIT 8"))
    return [access_tokens.issue(row.user_id, row.id, timedelta(hours=1)) for row in sessions]


def start_upgrade(root: Path, url: URL) -> subprocess.Popen[str]:
    """`alembic upgrade head` with the migrations that are there."""
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "-c", root / "alembic.ini", "upgrade", "head"],
        cwd=root if (root / "app").exists() else ROOT,
        env=environment(DATABASE_URL=address(url)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(upgrade: subprocess.Popen[str]) -> str:
    _, error = upgrade.communicate(timeout=180)
    assert upgrade.returncode == 0, error
    return error


def miscounted(connection: Connection) -> int:
    found = connection.scalar(
        text("""
            SELECT count(*) FROM posts LEFT JOIN post_stats ON post_id = id
            WHERE post_stats.votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE votes.post_id = posts.id)
        """)
    )
    return int(found or 0)


# --- The example ---


@pytest.fixture
def with_example(tmp_path: Path) -> Path:
    """A folder with the existing migrations, and after them those of docs/migrations.md."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    files = re.findall(r"^`(\w+\.py)`\n```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert [name[11:15] for name, _ in files] == ["0101", "0102", "0103", "0104", "0105"]
    for name, source in files:
        (tmp_path / "alembic" / "versions" / name).write_text(source.replace('"0100"', f'"{revisions()[-1]}"'))
    return tmp_path


@pytest.mark.slow
def test_the_example_disturbs_no_request_even_while_a_lock_is_held(
    with_example: Path, serve: Callable[..., Server], url: URL, engine: Engine, looking: Connection, figure: Figure
) -> None:
    command.upgrade(config_for(url), "head")
    load = Load(serve(), fill(looking))
    load.start()
    try:
        time.sleep(SETTLING_SECONDS)
        began_at = time.monotonic()
        with engine.begin() as blocker:
            blocker.execute(text("SELECT FROM posts LIMIT 1"))
            upgrade = start_upgrade(with_example, url)
            wait_until_blocked(looking, by=blocker)
            wait_until(looking, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode ~ 'Access')")
            wait_until_blocked(looking, by=blocker)  # It tries again; meanwhile the queued requests have run.
        output = finished(upgrade)
        time.sleep(SETTLING_SECONDS)
        ended_at = time.monotonic()
    finally:
        load.stop()

    assert version(looking) == "0105"
    assert "lock timeout" in output
    assert re.findall(r"counted the words of posts up to (\d+) of", output)[0] == "5000"
    figure(f"the example of docs/migrations.md: {load.assert_no_request_was_disturbed(since=began_at, until=ended_at)}")
    assert miscounted(looking) == 0
    assert looking.scalar(text("SELECT count(*) FROM posts WHERE content = 'a few words'")) > 0
    wrong = r"word_count <> cardinality(regexp_split_to_array(btrim(content), '\s+'))"
    assert looking.scalar(text(f"SELECT count(*) FROM posts WHERE {wrong}")) == 0


@pytest.mark.slow
def test_a_migration_that_breaks_the_previous_release_is_noticed(
    serve: Callable[..., Server], url: URL, looking: Connection
) -> None:
    command.upgrade(config_for(url), "head")
    load = Load(serve(), fill(looking))
    load.start()
    try:
        time.sleep(1)
        looking.execute(text("ALTER TABLE posts RENAME COLUMN content TO body"))
        time.sleep(2)
    finally:
        load.stop()

    assert load.answers.with_status(500)


def test_the_example_passes_squawk_and_keeps_rows_up_and_down_and_up_again(
    with_example: Path, url: URL, looking: Connection
) -> None:
    config = Config(with_example / "alembic.ini")
    config.attributes |= {"url": url, "configure_logging": False}

    done = lint(config)
    command.upgrade(config, "head")
    fill(looking)
    command.downgrade(config, "0102")
    command.downgrade(config, revisions()[-1])
    command.upgrade(config, "head")

    assert (done.returncode, done.stdout) == (0, "")
    assert looking.scalar(text("SELECT count(*) FROM posts WHERE word_count > 0")) == POSTS


def test_the_command_it_shows_makes_a_migration_in_its_place(tmp_path: Path, url: URL) -> None:
    command.upgrade(config_for(url), "head")
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    (shown,) = re.findall(r"^ *alembic (revision .*)$", DOCUMENT, re.MULTILINE)

    run_alembic("-c", str(tmp_path / "alembic.ini"), *shlex.split(shown), DATABASE_URL=address(url))

    (made,) = (tmp_path / "alembic" / "versions").glob("*_0101_add_word_count_to_posts.py")
    assert re.fullmatch(r"20\d\d_[01]\d_[0-3]\d_0101_add_word_count_to_posts.py", made.name)
    source = made.read_text()
    assert 'revision = "0101"' in source.replace("'", '"')
    assert f'down_revision = "{revisions()[-1]}"' in source.replace("'", '"')


# --- The newest migration ---


def git(*arguments: str) -> str:
    """Return what it printed; nothing where it failed."""
    done = subprocess.run([find_program("git"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@pytest.fixture
def release_before(tmp_path: Path) -> Path:
    """The repository before the newest migration came onto this branch.

    It is the release that serves meanwhile.
    """
    if not git("rev-parse", "--show-toplevel"):
        pytest.skip("the release before is in the repository's history, and this is no git checkout")
    newest = max((ROOT / "alembic" / "versions").glob("*.py")).relative_to(ROOT)
    came = git("log", "--first-parent", "-m", "--no-renames", "--diff-filter=A", "--format=%H", "-1", "--", str(newest))
    before = git("rev-parse", "--verify", f"{came}^1^{{commit}}") if came else git("rev-parse", "HEAD")
    if not before:
        pytest.skip("the release before is not in this clone's history (a shallow clone: git fetch --unshallow)")
    folder = tmp_path / "before"
    folder.mkdir()
    with (
        subprocess.Popen([find_program("git"), "archive", before], cwd=ROOT, stdout=subprocess.PIPE) as archive,
        tarfile.open(fileobj=archive.stdout, mode="r|") as tar,
    ):
        tar.extractall(folder, filter="data")
    assert archive.returncode == 0
    assert not (folder / newest).exists()
    return folder


@pytest.mark.slow
def test_the_release_before_the_newest_migration_serves_on_while_it_runs_and_after_it(
    release_before: Path,
    serve: Callable[..., Server],
    url: URL,
    engine: Engine,
    looking: Connection,
    figure: Figure,
) -> None:
    finished(start_upgrade(release_before, url))
    at_first = version(looking)
    assert at_first in revisions()[:-1]
    # Its readiness is not tested here: that of today's release is, above.
    load = Load(serve(release_before), fill(looking), asks_readiness=False)
    load.start()
    try:
        time.sleep(SETTLING_SECONDS)
        began_at = time.monotonic()
        upgraded = in_background(lambda: finished(start_upgrade(ROOT, url)))
        with engine.begin() as blocker:
            blocker.execute(text("SELECT FROM posts, users, votes, sessions LIMIT 1"))
            time.sleep(SETTLING_SECONDS)
        upgraded()
        time.sleep(SETTLING_SECONDS)
        ended_at = time.monotonic()
        serve()  # The new release takes over, and is ready beside the old one.
        time.sleep(SETTLING_SECONDS)
    finally:
        load.stop()

    assert version(looking) == revisions()[-1]
    output = load.assert_no_request_was_disturbed(since=began_at, until=ended_at)
    figure(f"the release before, while the schema went from {at_first} to {revisions()[-1]}: {output}")
    assert miscounted(looking) == 0
