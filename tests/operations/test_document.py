"""docs/operations.md works line by line, from an empty machine to a restored backup."""

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pyotp
import pytest
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.config import Settings
from app.database.locks import MIGRATION_LOCK
from app.dev import postgres as local_postgres
from tests import pictures
from tests.conftest import ROOT
from tests.figures import Figure
from tests.fixtures import PASSWORD, free_port
from tests.migrations.conftest import address
from tests.operations.shell import Shell, sections, shell

pytestmark = pytest.mark.needs("bash", "curl")

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
SECTIONS = sections(DOCUMENT)
WHEN = DOCUMENT.split("## What to do when …")[1]


@dataclass(frozen=True)
class Machine:
    """An empty PostgreSQL, a folder with the repository, and a shell."""

    postgres: URL
    shell: Shell
    port: int

    def type(self, block: str) -> str:
        block = block.replace("db.example.com:5432", f"{self.postgres.host}:{self.postgres.port}")
        return self.shell.run(block.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))

    def follow(self, heading: str) -> list[str]:
        """Run the blocks below a heading, and return the output of each."""
        said = []
        for language, block in SECTIONS[heading]:
            if language == "sh":
                said.append(self.type(block))
            elif language == "sql":
                said.append(self.sql(block))
            elif block == "python -m app serve\n":
                self.serve(self.port)
        return said

    def sql(self, statements: str) -> str:
        return self.type(
            f"psql \"$ADMIN_URL/social_posts\" --set ON_ERROR_STOP=on --no-psqlrc <<'END'\n{statements}END"
        )

    def serve(self, port: int) -> None:
        self.shell.run(f"PORT={port} python -m app serve > server-{port}.log 2>&1 &")
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
            except (httpx2.TransportError, AssertionError):
                assert time.monotonic() < deadline, self.shell.run(f"cat server-{port}.log")
                time.sleep(0.1)
            else:
                return

    def connect(self, database: str) -> Connection:
        url = self.postgres.set(database=database)
        return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="operations-"))
    folder.chmod(0o711)
    try:
        with local_postgres.running(folder / "postgres") as postgres, _machine(postgres, folder) as machine:
            yield machine
    finally:
        shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _machine(postgres: URL, folder: Path) -> Iterator[Machine]:
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("app", "alembic", "alembic.ini", "deploy"):
        (checkout / name).symlink_to(ROOT / name)
    programs = [Path(sys.executable).parent, local_postgres._packaged_binaries()]
    passwords = checkout / ".pgpass"
    passwords.write_text(f"*:*:*:{postgres.username}:{postgres.password}\n")
    passwords.chmod(0o600)
    with shell(checkout, programs, WORKERS="1") as there:
        there.run(f'psql {address(postgres.set(database="postgres"))} --command "DROP DATABASE {postgres.database}"')
        yield Machine(postgres, there, free_port())


class Site:
    """A client of the API."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client

    def ask(self, status: int, method: str, path: str, **more: Any) -> Any:
        answer = self.client.request(method, path, **more)
        assert answer.status_code == status, (method, path, answer.text)
        return answer.json() if answer.content else None

    def sign_in(self, email: str, **more: str) -> None:
        pair = self.ask(200, "POST", "/login", data={"username": email, "password": PASSWORD, **more})
        self.client.headers["Authorization"] = f"Bearer {pair['access_token']}"


@pytest.fixture
def visit() -> Iterator[Callable[[int], Site]]:
    """Visit the server on a port, as a new user."""
    with ExitStack() as stack:
        yield lambda port: Site(stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)))


def use(site: Site) -> tuple[str, str]:
    """Fill every table, with `MANY`. Returns the user's authenticator secret and API key."""
    of_bob = 0
    for name in ("bob", "ada"):
        account = {"email": f"{name}@example.com", "password": PASSWORD, "username": name}
        site.ask(201, "POST", "/users", json=account, headers={"Idempotency-Key": name})
        site.sign_in(f"{name}@example.com")
        for number in range(3):
            post = {"title": f"{number} of {name}", "content": "Zwölf Boxkämpfer 🥊", "published": number != 2}
            post_id = site.ask(201, "POST", "/posts", json=post | {"tags": ["a"]})["id"]
            of_bob = post_id if (name, number) == ("bob", 1) else of_bob
            site.ask(200 if post["published"] else 404, "PUT", f"/posts/{post_id}/vote")
    site.ask(204, "DELETE", f"/posts/{post_id}")
    bob = site.ask(200, "GET", "/users/by-username/bob")["id"]
    comment = site.ask(201, "POST", f"/posts/{of_bob}/comments", json={"content": "Kaufen Sie"})["id"]
    for path in (
        f"/comments/{comment}/vote", f"/posts/{of_bob}/bookmark", f"/posts/{of_bob}/mute", f"/users/{bob}/follow",
        "/tags/a/follow",
    ):  # fmt: skip
        site.ask(200, "PUT", path)
    site.ask(201, "POST", "/reports", json={"post_id": of_bob, "reason": "Spam"})
    upload(site)
    site.ask(202, "POST", "/password-reset", json={"email": "bob@example.com"})
    key: str = site.ask(201, "POST", "/api-keys", json={"name": "a key", "scopes": ["read"]})["key"]
    secret: str = site.ask(200, "POST", "/users/me/totp", json={"current_password": PASSWORD})["secret"]
    site.ask(200, "POST", "/users/me/totp/confirm", json={"code": pyotp.TOTP(secret).now()})
    return secret, key


MANY = """
    INSERT INTO users (email, email_canonical, password_hash)
        SELECT n || '@example.net', n || '@example.net', '' FROM generate_series(1, 300) AS n;
    INSERT INTO posts (owner_id, title, content)
        SELECT (SELECT max(id) FROM users) - n % 300, 'title ' || n, repeat(n || ' ', 50)
        FROM generate_series(1, 5000) AS n;
    INSERT INTO votes (post_id, user_id)
        SELECT posts.id, users.id FROM posts JOIN users ON (posts.id * 7 + users.id) % 23 = 0;
    INSERT INTO mail_tokens (user_id, purpose, token_hash, email, expires_at)
        SELECT id, 'password_reset', '\\x00', email, now() FROM users ORDER BY id LIMIT 1;
    -- Blocked a moment ago, so that the servers leave it alone for an hour.
    INSERT INTO deletions (user_id, blocked_at) SELECT max(id), now() FROM users;
    INSERT INTO blocks (blocker_id, blocked_id) SELECT min(id), max(id) FROM users;
    INSERT INTO invites (token_hash, expires_at) VALUES ('\\x00', now() + interval '1 day');
    INSERT INTO media_removals (name, due_at) VALUES (repeat('0', 32), now() + interval '1 day');
    INSERT INTO moderation_log (action, user_id) SELECT 'unban', max(id) FROM users;
    -- Disabled, so that no server delivers or removes anything.
    INSERT INTO webhooks (owner_id, url, events, secret, disabled_at)
        SELECT max(id), 'https://example.com/', '{comment}', '', now() FROM users;
    INSERT INTO webhook_deliveries (webhook_id, event, body, status) SELECT id, 'test', '{}', 'given_up' FROM webhooks;
    INSERT INTO event_positions (consumer, transaction_id, event_id) VALUES ('webhooks', 0, 0);
"""


def hashes(connection: Connection) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table, and a hash of them."""
    tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")).all()
    rows = "SELECT md5(line::text) AS row FROM {} AS line"
    found = {}
    for table in tables:
        count, digest = connection.execute(
            text(
                f"SELECT count(*), coalesce(md5(string_agg(row, '' ORDER BY row)), '') FROM ({rows.format(table)}) AS t"
            )
        ).one()
        found[table] = (int(count), str(digest))
    return found


def sequences(connection: Connection) -> dict[str, int]:
    rows = connection.execute(text("SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'"))
    return {row.sequencename: row.last_value or 0 for row in rows}


def assert_well(doctor: str) -> None:
    assert "FAIL" not in doctor
    assert "ok    role social_posts: may read and write rows only" in doctor
    assert "ok    rights: may read and write every table" in doctor


@pytest.mark.slow
def test_followed_line_by_line_it_installs_upgrades_backs_up_restores_and_repairs(
    machine: Machine, visit: Callable[[int], Site], figure: Figure
) -> None:
    *_, admin, checks = machine.follow("Install")
    assert re.search(r"^The password is: \S{20}$", admin, re.MULTILINE)
    assert_well(admin)
    assert '{"status":"ok"}' in checks
    assert 'process_resident_memory_bytes{worker="' in checks
    environment = machine.shell.run(r"tr '\0' '\n' < /proc/$!/environ")
    assert machine.shell.run('echo "$APP_PASSWORD"').strip() in environment
    assert machine.shell.run('echo "$OWNER_PASSWORD"').strip() not in environment
    site = visit(machine.port)
    secret, api_key = use(site)
    with machine.connect("social_posts") as connection:
        connection.execute(text(MANY))

    (upgraded,) = machine.follow("Upgrade")
    assert_well(upgraded)
    with machine.connect("social_posts") as connection:
        before, numbers = hashes(connection), sequences(connection)
    machine.follow("Back up")
    site.ask(201, "POST", "/posts", json={"title": "after the backup", "content": "lost"})

    restore = [block for language, block in SECTIONS["Restore"] if language == "sh"]
    assert len(restore) == 4
    assert "WARNING" not in machine.type(restore[0])
    with machine.connect("social_posts_restored") as connection:
        after = hashes(connection)
        assert sequences(connection) == numbers
    assert after == before
    # Tables that only the release before fills.
    assert {table for table, (count, _) in after.items() if not count} == {"schedules", "post_stats_history"}
    machine.type(restore[1])
    assert_well(machine.type(restore[2]))
    machine.type('DATABASE_URL="$OWNER_URL/social_posts_restored" alembic check')
    figure(
        f"restored from a backup: {sum(count for count, _ in after.values()):,} rows of {len(after)} tables,"
        f" {len(numbers)} sequences, all the same"
    )

    port = free_port()
    machine.shell.run('export DATABASE_URL="$APP_URL/social_posts_restored" MAIL_ENABLED=false')
    machine.serve(port)
    restored = visit(port)
    restored.sign_in("ada@example.com", otp=pyotp.TOTP(secret).at(int(time.time()) + 30))
    next_one = restored.ask(201, "POST", "/posts", json={"title": "next", "content": "…"})
    assert next_one["id"] == numbers["posts_id_seq"] + 1
    restored.ask(200, "GET", "/posts", headers={"Authorization": f"Bearer {api_key}"})
    restored.ask(200, "GET", "/posts", headers={"Authorization": site.client.headers["Authorization"]})
    machine.type(restore[3])
    restored.ask(401, "GET", "/posts")
    restored.ask(401, "GET", "/posts", headers={"Authorization": f"Bearer {api_key}"})

    machine.shell.run('export DATABASE_URL="$APP_URL/social_posts"')
    mend(machine)


def mend(machine: Machine) -> None:
    """For each incident: the commands that show it do, and those that repair it do."""
    (looked,) = machine.follow("What to do when …")
    assert '{"status":"ok"}' in looked
    assert_well(looked)
    assert "posts" in machine.follow("The disk is full")[0]
    machine.follow("A replica lags behind")

    with machine.connect("social_posts") as connection:
        connection.execute(text("UPDATE post_stats SET votes = votes + 1 WHERE post_id = 1"))
        connection.execute(text("UPDATE outgoing_mails SET due_at = 'infinity', attempt_count = 8, failure = 'no'"))
        assert "1 wrong, 1 repaired" in machine.follow("Counts differ from the rows")[0]
        shown, _ = machine.follow("Mails do not arrive")
        assert re.search(r"password_reset +\| +8 \| infinity", shown)
        assert connection.scalar(text("SELECT count(*) FROM outgoing_mails WHERE due_at <= now()")) > 0
        assert "https://example.com/" in machine.follow("Webhooks are not delivered")[0]
        assert "nothing to take away" in machine.follow("A user lost their second factor")[0]
        for block in re.findall(r"`(python -m app user [^`]*)`", WHEN):
            assert machine.type(block if "reset-password" not in block else f"{block} --generate")

        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        assert str(pid) in machine.follow("A migration is stuck")[0]
    with machine.connect("social_posts").execution_options(isolation_level="READ COMMITTED") as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        assert re.search(rf"^ *{pid} .* idle in transaction", machine.follow("Many answers are 503")[0], re.MULTILINE)


@pytest.mark.slow
def test_pictures_are_restored_with_the_database(machine: Machine, visit: Callable[[int], Site]) -> None:
    machine.follow("Install")
    site = visit(machine.port)
    site.ask(201, "POST", "/users", json={"email": "ada@example.com", "password": PASSWORD, "username": "ada"})
    site.sign_in("ada@example.com")
    dump, copy = (block for language, block in SECTIONS["Back up"] if language == "sh")
    kept, copied = upload(site), upload(site)
    machine.type(copy)
    lost = upload(site)
    machine.type(dump)
    late = upload(site)
    for picture in (copied, lost):
        remove(site, picture)
    machine.type(copy)

    restore = [block for language, block in SECTIONS["Restore"] if language == "sh"]
    machine.type(restore[0])
    machine.type(restore[1])
    missing, orphan = name(lost), name(late)
    doctor = machine.type(restore[2].rstrip() + " || true\n")
    assert f"FAIL  pictures: 1 pictures ({missing}) have no file" in doctor
    assert f"warn  pictures: files of 1 pictures ({orphan}) have no row" in doctor
    with machine.connect("social_posts_restored") as connection:
        connection.execute(text("DELETE FROM media WHERE name = :name"), {"name": missing})
        connection.execute(text("INSERT INTO media_removals (name) VALUES (:name)"), {"name": orphan})

    port = free_port()
    machine.shell.run('export DATABASE_URL="$APP_URL/social_posts_restored" MAIL_ENABLED=false')
    machine.serve(port)
    restored = visit(port)
    restored.sign_in("ada@example.com")
    assert [picture["id"] for picture in restored.ask(200, "GET", "/media")] == [copied["id"], kept["id"]]
    for picture in (kept, copied):
        assert restored.client.get(picture["url"]).status_code == 200
        assert restored.client.get(picture["preview_url"]).status_code == 200
    wait_until_gone(restored, late)
    assert "ok    pictures: all files match the rows" in machine.type(restore[2])
    assert site.client.get(late["url"]).status_code == 200


def upload(site: Site) -> dict[str, Any]:
    return dict(site.ask(201, "POST", "/media", files={"file": ("a.png", pictures.png())}))


def name(picture: dict[str, Any]) -> str:
    return str(picture["url"]).removeprefix("/media/files/").removesuffix(".webp")


def remove(site: Site, picture: dict[str, Any]) -> None:
    site.ask(204, "DELETE", f"/media/{picture['id']}")
    wait_until_gone(site, picture)


def wait_until_gone(site: Site, picture: dict[str, Any]) -> None:
    deadline = time.monotonic() + 90
    while site.client.get(picture["url"]).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_every_setting_it_names_exists() -> None:
    variables = {"SERVER", "OWNER_PASSWORD", "APP_PASSWORD", "ADMIN_URL", "OWNER_URL", "APP_URL", "BACKUPS_KEPT_DAYS"}
    variables |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\S+)?`", DOCUMENT)) - variables

    assert {"SECRET_KEY_PREVIOUS", "MAX_WAITING"} <= named
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_link_within_it_leads_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in SECTIONS}

    linked = re.findall(r"\]\(#([^)]*)\)", DOCUMENT)

    assert len(linked) >= 10
    assert set(linked) <= anchors
