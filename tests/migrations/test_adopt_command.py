"""`python -m app adopt` in real processes: output, refusals, and what interruptions leave."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Semaphore
from typing import Any

import httpx2
import pytest
from jose import jwt
from sqlalchemy import URL, Connection, Engine, event, text

from app import adoption
from app.config import get_settings
from app.database.locks import MIGRATION_LOCK
from tests.fixtures import _server
from tests.migrations import descendants
from tests.migrations.conftest import ROOT, address, contents, environment, revisions, run_alembic, version
from tests.races.conftest import wrong_counts
from tests.races.waiting import in_background, wait_until_blocked

HEAD = revisions()[-1]
HALF_AN_HOUR = timedelta(minutes=30)
TIMEOUT_SECONDS = 900  # A million rows on a busy machine.


def start(url: URL, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", "adopt", *arguments],
        cwd=ROOT,
        env=environment(DATABASE_URL=address(url)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(url: URL, *arguments: str) -> subprocess.CompletedProcess[str]:
    return finish(start(url, *arguments))


def test_dry_run_reports_findings_and_actions_and_changes_nothing(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.WITHOUT_CONSTRAINTS)

    dry = run(url, "--dry-run")

    assert dry.returncode == 0, dry.stderr
    assert "posts: 2 rows (id, title, content, published, user_id)" in dry.stdout
    assert "move 2 votes cast before to a table former_votes" in dry.stdout
    assert version(looking) == "0006"
    assert looking.scalar(text("SELECT count(*) FROM votes")) == 7


def test_command_adopts_and_says_every_step(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)

    done = run(url)
    again = run(url)

    assert done.returncode == 0, done.stderr
    assert "in the place of 5c1d7f0a9be2" in done.stdout
    assert f"migration {HEAD}: " in done.stdout
    assert again.returncode == 0
    assert f"tables of this project, at migration {HEAD}" in again.stdout
    assert again.stdout.endswith("Already adopted; nothing to do.\n")
    assert "Doing" not in again.stdout
    assert version(looking) == HEAD


def test_refusal_has_the_reason_and_the_remedy_and_no_address(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    looking.exec_driver_sql("UPDATE users SET email = 'aDA@example.com' WHERE id = 2")

    refused = run(url)

    assert refused.returncode == 1
    assert "users 1, 2 have the same e-mail address" in refused.stdout
    assert "change the address of all but one" in refused.stdout
    assert "@example.com" not in refused.stdout + refused.stderr
    assert version(looking) == "5c1d7f0a9be2"


def test_without_a_configured_database_it_is_refused_in_one_line() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "app", "adopt"],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": ""}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert refused.returncode == 1
    assert refused.stderr == "error: no database is configured; set DATABASE_URL\n"


def test_of_two_concurrent_runs_both_succeed_and_one_does_the_work(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.GROWN_ON)

    runs = [finish(process) for process in [start(url), start(url)]]

    assert [done.returncode for done in runs] == [0, 0], [done.stderr for done in runs]
    assert sum(done.stdout.count("tell Alembic") for done in runs) == 1
    assert sum(done.stdout.count(f"migration {HEAD}: ") for done in runs) == 1
    assert wrong_counts(looking) == 0
    assert looking.scalar(text("SELECT count(*) FROM former_votes")) == 2


def test_tables_in_use_stop_it_and_nothing_is_changed(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    with engine.begin() as blocker:
        blocker.execute(text("SELECT FROM posts"))
        blocked = in_background(lambda: run(url))
        wait_until_blocked(looking, by=blocker)
        done = blocked()

    assert done.returncode == 1
    assert done.stderr.startswith("error: canceling statement due to lock timeout")
    assert version(looking) == "5c1d7f0a9be2"
    assert run(url).returncode == 0


def test_a_look_at_the_version_waits_for_a_migration(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    looking.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    tries = Semaphore(0)

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pg_try_advisory_xact_lock_shared" in statement:
            tries.release()

    look = in_background(lambda: adoption.look(engine))
    for _ in range(2):  # A second attempt shows that the first was refused.
        assert tries.acquire(timeout=20)
    descendants.make(looking, "DROP TABLE votes")
    looking.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})

    assert "create table votes" in [what for what, _ in look().steps]


def test_no_write_happens_between_the_examination_and_the_end(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    held: list[set[str]] = []

    def note(_: str) -> None:
        locks = "SELECT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        held.append(set(looking.scalars(text(locks))))

    adoption.adopt(url, note, tokens_live=HALF_AN_HOUR)

    assert held[0] >= {"users", "posts", "votes"}


@pytest.mark.parametrize("revision", ["0008", "0016", HEAD])
def test_interrupted_run_leaves_the_database_as_it_was_and_can_be_repeated(
    url: URL, looking: Connection, revision: str
) -> None:
    descendants.make(looking, descendants.BY_SQLMODEL)
    before = contents(looking)
    choices = adoption.Choices.parse(descendants.MAPS["by sqlmodel"], [])

    class Killed(BaseException):
        pass

    def kill(what: str) -> None:
        if what.startswith(f"migration {revision}"):
            raise Killed

    with pytest.raises(Killed):
        adoption.adopt(url, kill, tokens_live=HALF_AN_HOUR, choices=choices)
    assert contents(looking) == before

    adoption.adopt(url, lambda _: None, tokens_live=HALF_AN_HOUR, choices=choices)

    assert version(looking) == HEAD
    assert looking.scalars(text("SELECT username FROM users WHERE is_active ORDER BY id")).all() == [
        "ada", "user2", "user4",
    ]  # fmt: skip
    assert looking.scalar(text("SELECT count(*) FROM votes WHERE created_at = '2022-05-04 05:06Z'")) == 1


# What an owner adds beside the API's tables and in them, after `adopt`.
OF_THE_OWNER = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id serial PRIMARY KEY, user_id bigint REFERENCES public.users);
    CREATE SEQUENCE invoice_numbers;
    CREATE TABLE categories (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES categories);
    CREATE INDEX categories_parent_idx ON categories (parent_id);
    CREATE VIEW titles AS SELECT title FROM posts;
    ALTER TABLE posts ADD COLUMN category_id int CONSTRAINT posts_category REFERENCES categories,
        ADD COLUMN invoice bigint DEFAULT nextval('invoice_numbers'), ADD CONSTRAINT posts_invoice_key UNIQUE (invoice),
        ADD CONSTRAINT posts_title_length CHECK (length(title) < 500);
    CREATE INDEX posts_lower_title_idx ON posts (lower(title));
    CREATE UNIQUE INDEX users_phone_idx ON users (phone) WHERE phone <> '';
    ALTER TABLE votes ADD CONSTRAINT votes_once UNIQUE (user_id, post_id);
"""
# Per change to what the models have: the operation that autogenerate finds.
DIFFERENCES = {
    "DROP TABLE api_keys": "op.create_table('api_keys'",
    "ALTER TABLE posts DROP COLUMN version": "op.add_column('posts', sa.Column('version'",
    "ALTER TABLE posts ALTER COLUMN title DROP NOT NULL": "op.alter_column('posts', 'title'",
    "ALTER TABLE users ALTER COLUMN role DROP DEFAULT": "op.alter_column('users', 'role'",
    "DROP INDEX posts_search_idx": "op.create_index('posts_search_idx', 'posts'",
    "DROP INDEX posts_created_at_id_idx; CREATE INDEX posts_created_at_id_idx ON posts (id)":
        "op.drop_index(op.f('posts_created_at_id_idx')",
    "ALTER TABLE users DROP CONSTRAINT users_email_canonical_key":
        "op.create_unique_constraint(op.f('users_email_canonical_key')",
    "ALTER TABLE votes DROP CONSTRAINT votes_users_fkey": "op.create_foreign_key(op.f('votes_users_fkey')",
    "ALTER TABLE posts DROP CONSTRAINT posts_users_fkey, ADD CONSTRAINT posts_users_fkey FOREIGN KEY (owner_id)"
    " REFERENCES users ON DELETE RESTRICT": "op.drop_constraint(op.f('posts_users_fkey')",
}  # fmt: skip


def autogenerated(url: URL, folder: Path) -> list[str]:
    """Return the lines of `upgrade` that `alembic revision --autogenerate` writes, in a copy of the migrations."""
    shutil.copytree(ROOT / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", folder)
    arguments = ("-c", str(folder / "alembic.ini"), "revision", "--autogenerate", "--rev-id", "new")
    done = run_alembic(*arguments, DATABASE_URL=address(url))
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "alembic" / "versions").glob("*_new_.py")
    upgrade = path.read_text().split("def upgrade() -> None:")[1].split("def downgrade()")[0]
    return [line.strip() for line in upgrade.splitlines() if line.strip() and not line.strip().startswith(("#", '"'))]


@pytest.fixture
def with_objects_of_the_owner(url: URL, looking: Connection) -> URL:
    """An adopted database with tables, columns, indexes and constraints that the models do not have."""
    descendants.make(looking, descendants.GROWN_ON)
    adoption.adopt(url, lambda _: None, tokens_live=HALF_AN_HOUR)
    looking.exec_driver_sql(OF_THE_OWNER)
    return url


@pytest.mark.slow
def test_after_adoption_alembic_leaves_alone_what_the_owner_made(
    with_objects_of_the_owner: URL, tmp_path: Path
) -> None:
    check = run_alembic("check", DATABASE_URL=address(with_objects_of_the_owner))

    assert check.returncode == 0, check.stdout + check.stderr
    assert autogenerated(with_objects_of_the_owner, tmp_path) == ["pass"]


@pytest.mark.slow
def test_after_adoption_alembic_finds_what_differs_from_the_models(
    with_objects_of_the_owner: URL, looking: Connection, tmp_path: Path
) -> None:
    looking.exec_driver_sql("; ".join(DIFFERENCES))

    check = run_alembic("check", DATABASE_URL=address(with_objects_of_the_owner))
    found = "\n".join(autogenerated(with_objects_of_the_owner, tmp_path))

    assert check.returncode != 0
    assert [operation for operation in DIFFERENCES.values() if operation not in found] == []
    for name in ("categor", "invoice", "phone", "votes_once", "lower_title"):
        assert name not in found


@pytest.fixture
def adopted_client(url: URL, looking: Connection, tmp_path: Path) -> Iterator[httpx2.Client]:
    """A client of a server on the most different descendant, adopted."""
    descendants.make(looking, descendants.GROWN_ON)
    adoption.adopt(url, lambda _: None, tokens_live=HALF_AN_HOUR)
    with _server(tmp_path, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        yield client


def test_adopted_database_is_served(adopted_client: httpx2.Client) -> None:
    form = {"username": "ADA@example.com", "password": descendants.PASSWORD}
    signed_in = adopted_client.post("/login", data=form)
    assert signed_in.status_code == 200, signed_in.text
    adopted_client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"

    (first,) = adopted_client.get("/posts").json()
    assert (first["Post"]["title"], first["Post"]["owner_id"], first["votes"], first["voted"]) == ("first", 1, 1, True)
    new = adopted_client.post("/posts", json={"title": "new", "content": "one"})
    assert new.status_code == 201
    assert new.json()["id"] == 102
    assert adopted_client.post("/vote", json={"post_id": 102, "vote_dir": 1}).status_code == 201
    account = {"email": "new@example.com", "password": "a long enough password"}
    assert adopted_client.post("/users", json=account).status_code == 201
    assert adopted_client.delete("/posts/102").status_code == 204


def tutorial_token(user_id: object = 1, lives_seconds: int = 600, **claims: object) -> dict[str, str]:
    """The header of a user that the tutorial's server signed in."""
    payload = {"user_id": user_id, "exp": int(time.time()) + lives_seconds, **claims}
    return {"Authorization": f"Bearer {jwt.encode(payload, get_settings().signing_secret, algorithm='HS256')}"}


def test_tokens_of_the_tutorial_are_accepted_until_they_or_their_session_end(
    adopted_client: httpx2.Client, looking: Connection
) -> None:
    def status(headers: dict[str, str]) -> int:
        return adopted_client.get("/posts", headers=headers).status_code

    ada = tutorial_token(1)
    assert status(ada) == 200
    assert adopted_client.get("/users/me", headers=ada).json()["email"] == "ada@example.com"
    assert adopted_client.post("/vote", json={"post_id": 100, "vote_dir": 0}, headers=ada).status_code == 201
    assert adopted_client.post("/posts", json={"title": "new", "content": "one"}, headers=ada).status_code == 201

    assert status(tutorial_token(1, -1)) == 401
    assert status(tutorial_token(99)) == 401
    assert status(tutorial_token(-1)) == 401
    assert status(tutorial_token("1")) == 401
    assert status(tutorial_token(1, role="admin")) == 401
    assert status(tutorial_token(1, sid=2**52 + 2)) == 401
    forged = jwt.encode({"user_id": 1, "exp": int(time.time()) + 600}, "x" * 32, algorithm="HS256")
    assert status({"Authorization": f"Bearer {forged}"}) == 401
    looking.exec_driver_sql("UPDATE sessions SET expires_at = now() WHERE user_id = 1")
    assert status(ada) == 401
    assert status(tutorial_token(1)) == 401


def test_tokens_of_the_tutorial_end_with_the_password_the_account_and_a_sign_out(
    adopted_client: httpx2.Client, looking: Connection
) -> None:
    ada, bob = tutorial_token(1), tutorial_token(2)
    signed_in = adopted_client.post(
        "/login", data={"username": "ada@example.com", "password": descendants.PASSWORD}
    ).json()
    now = {"Authorization": f"Bearer {signed_in['access_token']}"}
    assert [adopted_client.get("/posts", headers=each).status_code for each in (ada, bob, now)] == [200, 200, 200]

    change = {"password": "another long password", "current_password": descendants.PASSWORD}
    assert adopted_client.patch("/users/me", json=change, headers=now).status_code == 200
    looking.exec_driver_sql("UPDATE users SET is_active = false WHERE id = 2")

    assert [adopted_client.get("/posts", headers=each).status_code for each in (ada, bob, now)] == [401, 401, 200]


def test_sessions_for_old_tokens_end_with_the_longest_of_these(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)

    adoption.adopt(url, lambda _: None, tokens_live=HALF_AN_HOUR)

    ends_soon = "expires_at BETWEEN now() + interval '25 min' AND now() + interval '30 min'"
    sessions = looking.execute(text(f"SELECT id - user_id, {ends_soon} FROM sessions"))
    assert [tuple(row) for row in sessions] == [(2**52, True)] * 2
    insert = "INSERT INTO sessions (user_id, expires_at) VALUES (1, now()) RETURNING id"
    assert looking.scalar(text(insert)) == 1


@pytest.mark.slow
def test_a_million_rows_are_adopted_in_minutes(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    for statement in (
        "DELETE FROM users",
        "ALTER TABLE votes DROP CONSTRAINT votes_pkey",
        "INSERT INTO users (email, password) SELECT 'User' || n || '@example.com', ''"
        " FROM generate_series(1, 100000) AS n",
        "INSERT INTO posts (title, content, owner_id) SELECT 'title ' || n, repeat(md5(n::text) || ' ', 10),"
        " (SELECT min(id) FROM users) + n % 100000 FROM generate_series(1, 400000) n",
        "INSERT INTO votes (post_id, user_id) SELECT (SELECT min(id) FROM posts) + n % 400000,"
        " (SELECT min(id) FROM users) + n % 99991 FROM generate_series(1, 500000) n",
        "INSERT INTO votes SELECT * FROM votes LIMIT 1000",
    ):
        looking.execute(text(statement))

    started_at = time.monotonic()
    done = run(url)
    seconds = time.monotonic() - started_at

    assert done.returncode == 0, done.stderr
    print(f"adopted 100,000 users, 400,000 posts and 501,000 votes in {seconds:.0f} s")  # noqa: T201 - the figure.
    print(done.stdout)  # noqa: T201
    assert wrong_counts(looking) == 0
    assert looking.scalar(text("SELECT count(*) FROM votes")) == 500_000
    assert looking.scalar(text("SELECT count(*) FROM former_votes")) == 1_000
