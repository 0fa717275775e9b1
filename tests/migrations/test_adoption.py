"""A database that the tutorial made, brought to head in place: its users sign in and find what they wrote."""

from pathlib import Path

import bcrypt
import httpx2
import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.fixtures import _server
from tests.migrations.conftest import address, config_for, run_alembic, version

TUTORIAL_HEAD = "0006"
PASSWORDS = {"Ada@Example.com": "pa55word", "grace@example.com": "ein Paßwort"}


def fill_as_the_tutorial(connection: Connection) -> None:
    """A tutorial's database: users with bcrypt hashes, posts with gaps, and votes.

    The gaps are in the ids. The sequences are past rows that were deleted since.
    """
    for email, password in PASSWORDS.items():
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        assert hashed.startswith("$2b$")
        connection.execute(
            text("INSERT INTO users (email, password) VALUES (:email, :hash)"), {"email": email, "hash": hashed}
        )
    connection.execute(text("INSERT INTO users (email, password) VALUES ('left@example.com', '')"))
    connection.execute(text("DELETE FROM users WHERE email = 'left@example.com'"))
    connection.execute(
        text("""
            INSERT INTO posts (id, title, content, owner_id, created_at) VALUES
                (1, 'first', 'one', 1, '2021-05-01 12:00+00'), (4, 'second', 'two', 2, now()),
                (9, 'third', 'three', 1, now())
        """)
    )
    connection.execute(text("SELECT setval('posts_id_seq', 20)"))
    connection.execute(text("INSERT INTO votes (user_id, post_id) VALUES (1, 4), (2, 4), (2, 1)"))


def test_tutorial_database_serves_its_users_after_the_upgrade(url: URL, looking: Connection, tmp_path: Path) -> None:
    command.upgrade(config_for(url), TUTORIAL_HEAD)
    fill_as_the_tutorial(looking)

    command.upgrade(config_for(url), "head")

    with _server(tmp_path, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        for email, password in PASSWORDS.items():
            # The second time with the better hash, and the address in other case.
            for name in (email, email.swapcase()):
                signed_in = client.post("/login", data={"username": name, "password": password})
                assert signed_in.status_code == 200
            assert client.post("/login", data={"username": email, "password": password + "x"}).status_code == 403
        client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        posts = client.get("/posts", params={"sort": "old"}).json()
        new_post = client.post("/posts", json={"title": "new", "content": "one"}).json()
        new_user = client.post("/users", json={"email": "new@example.com", "password": "correct horse"}).json()

    assert (
        looking.scalars(text("SELECT left(password_hash, 15) FROM users WHERE id < 3")).all() == ["$bcrypt-sha256$"] * 2
    )
    found = {
        (item["Post"]["id"], item["Post"]["title"], item["Post"]["owner_id"], item["votes"], item["voted"])
        for item in posts
    }
    assert found == {(1, "first", 1, 1, True), (4, "second", 2, 2, True), (9, "third", 1, 0, False)}
    assert posts[0]["Post"]["created_at"] == "2021-05-01T12:00:00Z"
    assert new_post["id"] == 21
    assert new_user["id"] == 4


def test_empty_tables_of_the_tutorial_begin_with_id_1_after_the_upgrade(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), TUTORIAL_HEAD)

    command.upgrade(config_for(url), "head")

    insert = "INSERT INTO users (email, email_canonical, password_hash) VALUES ('', '', '') RETURNING id"
    assert looking.scalar(text(insert)) == 1


def test_addresses_that_differ_only_in_case_stop_the_upgrade_with_their_ids(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), TUTORIAL_HEAD)
    looking.execute(
        text("INSERT INTO users (id, email, password) VALUES (7, 'ada@example.com', ''), (12, 'ADA@example.com', '')")
    )

    run = run_alembic("upgrade", "head", DATABASE_URL=address(url))

    assert run.returncode != 0
    assert "Traceback" not in run.stdout + run.stderr
    assert "7, 12" in run.stdout + run.stderr
    assert version(looking) == "0007"
    assert looking.scalar(text("SELECT count(*) FROM users")) == 2


def offline_sql(url: URL, *revisions: str) -> list[str]:
    """The statements that `alembic upgrade … --sql` prints."""
    run = run_alembic("upgrade", *revisions, "--sql", DATABASE_URL=address(url))
    assert run.returncode == 0, run.stderr
    return [statement for statement in run.stdout.split(";\n\n") if statement.strip()]


def run_statements(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def test_sql_for_a_new_database_makes_what_alembic_makes(url: URL, looking: Connection) -> None:
    run_statements(looking, offline_sql(url, "head"))

    assert run_alembic("check", DATABASE_URL=address(url)).returncode == 0


def accounts(connection: Connection) -> list[tuple[object, ...]]:
    rows = connection.execute(
        text("SELECT id, email, email_canonical, username, role, is_active FROM users ORDER BY id")
    )
    return [tuple(row) for row in rows]


def test_sql_fills_in_the_accounts_of_a_tutorial_database_as_alembic_does(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), TUTORIAL_HEAD)
    fill_as_the_tutorial(looking)
    looking.execute(text("INSERT INTO users (email, password) VALUES (' Spaced@Example.COM\t', '')"))
    statements = offline_sql(url, f"{TUTORIAL_HEAD}:head")

    run_statements(looking, statements)

    by_sql = accounts(looking)
    command.downgrade(config_for(url), TUTORIAL_HEAD)
    command.upgrade(config_for(url), "head")
    assert accounts(looking) == by_sql
    assert [row[2] for row in by_sql] == ["ada@example.com", "grace@example.com", "spaced@example.com"]


def test_sql_refuses_addresses_that_only_python_can_fold(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), TUTORIAL_HEAD)
    looking.execute(text("INSERT INTO users (email, password) VALUES ('STRAẞE@example.com', '')"))

    with pytest.raises(Exception, match="beyond ASCII"):
        run_statements(looking, offline_sql(url, f"{TUTORIAL_HEAD}:head"))
