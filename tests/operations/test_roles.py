"""deploy/postgres/roles.sql: the servers' role does everything that servers do, and can do nothing else."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pyotp
import pytest
from psycopg2.errorcodes import INSUFFICIENT_PRIVILEGE
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.cli import doctor
from app.config import get_settings
from tests.fixtures import PASSWORD, _server
from tests.mail_server import MailServer
from tests.migrations.conftest import address
from tests.operations.conftest import Roles, _roles, run_alembic, run_app

REFUSED = (
    "CREATE TABLE more (id int)",
    "CREATE TEMPORARY TABLE more (id int)",
    "CREATE SCHEMA more",
    "CREATE FUNCTION more() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE SEQUENCE more",
    "CREATE INDEX more ON posts (title)",
    "CREATE RULE more AS ON DELETE TO posts DO INSTEAD NOTHING",
    "CREATE TRIGGER more BEFORE INSERT ON posts EXECUTE FUNCTION count_votes()",
    "ALTER TABLE posts ADD COLUMN more int",
    "ALTER TABLE votes DISABLE TRIGGER ALL",
    "ALTER TABLE users DROP CONSTRAINT users_role_check",
    "ALTER TABLE posts OWNER TO CURRENT_USER",
    "ALTER FUNCTION count_votes() RENAME TO more",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER SYSTEM SET fsync = off",
    "DROP TABLE votes",
    "DROP INDEX posts_search_idx",
    "DROP FUNCTION count_votes() CASCADE",
    "DROP SCHEMA public CASCADE",
    "TRUNCATE votes",
    "TRUNCATE users CASCADE",
    "COMMENT ON TABLE posts IS 'more'",
    "CREATE ROLE more",
    "SET ROLE {owner}",
    "SET session_replication_role = replica",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_user_mapping",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "COPY users TO '/tmp/more'",
    "COPY users TO PROGRAM 'cat'",
)


def connected(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


@pytest.fixture(scope="module")
def migrated(make_roles: Callable[[], Roles]) -> Roles:
    """A new installation: the roles, then the migrations, by the role that owns the tables."""
    roles = make_roles()
    for _ in range(2):  # It can be run again.
        made = roles.make()
        assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    done = run_alembic(roles.owner_url, "upgrade", "head")
    assert done.returncode == 0, done.stderr
    return roles


@pytest.fixture(scope="module")
def handed_over(make_roles: Callable[[], Roles]) -> Roles:
    """An existing installation: one role that made everything, and rows."""
    roles = make_roles()
    assert run_alembic(roles.admin_url, "upgrade", "head").returncode == 0
    with connected(roles.admin_url).begin() as connection:
        connection.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')"))
        connection.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('a', 'a', 1)"))
        connection.execute(text("CREATE TABLE theirs (id serial PRIMARY KEY); CREATE TYPE mood AS ENUM ('well')"))
        connection.execute(text("GRANT ALL ON posts TO PUBLIC; REVOKE ALL ON posts FROM PUBLIC"))
    made = roles.make()
    assert made.returncode == 0, made.stderr
    return roles


@pytest.fixture(params=["migrated", "handed_over"])
def either(request: pytest.FixtureRequest) -> Roles:
    roles: Roles = request.getfixturevalue(request.param)
    return roles


def test_the_servers_role_may_read_and_write_rows_and_nothing_else(either: Roles) -> None:
    with connected(either.app_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in REFUSED:
            with pytest.raises(DBAPIError) as refused:
                connection.execute(text(statement.format(owner=either.owner_url.username)))
            assert getattr(refused.value.orig, "pgcode", None) == INSUFFICIENT_PRIVILEGE, statement
        connection.execute(text("GRANT SELECT ON users TO PUBLIC"))  # Which PostgreSQL only warns of.
        assert not connection.scalar(text("SELECT has_table_privilege('public', 'users', 'SELECT')"))


def test_the_owner_is_no_superuser_and_owns_all_that_there_is(either: Roles) -> None:
    with connected(either.owner_url).connect() as connection:
        others = connection.scalars(
            text("""
                SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
                    AND relowner <> current_user::regrole
                UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                    AND proowner <> current_user::regrole
                UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
                    AND typowner <> current_user::regrole
            """)
        ).all()
        with pytest.raises(DBAPIError):
            connection.execute(text("CREATE ROLE more"))

    assert others == []


def test_the_next_migrations_tables_are_the_servers_to_write_at_once(migrated: Roles) -> None:
    with connected(migrated.owner_url).begin() as connection:
        connection.execute(text("CREATE TABLE later (id serial, what text)"))

    with connected(migrated.app_url).begin() as connection:
        connection.execute(text("INSERT INTO later (what) VALUES ('written')"))
        connection.execute(text("UPDATE later SET what = 'changed'"))
        assert connection.scalars(text("SELECT what FROM later")).all() == ["changed"]
        connection.execute(text("DELETE FROM later"))
    with connected(migrated.owner_url).begin() as connection:
        connection.execute(text("DROP TABLE later"))


@pytest.mark.slow
def test_migrations_go_down_and_up_again_in_the_owners_hands(migrated: Roles) -> None:
    for target in ("downgrade", "base"), ("upgrade", "head"):
        done = run_alembic(migrated.owner_url, *target)
        assert done.returncode == 0, done.stderr
    assert run_alembic(migrated.owner_url, "check").returncode == 0
    refused = run_alembic(migrated.app_url, "downgrade", "-1")
    assert "migrations need the role that owns the tables" in refused.stderr


def test_roles_that_may_do_more_are_refused(make_roles: Callable[[], Roles]) -> None:
    roles = make_roles()
    admin = str(roles.admin_url.username)
    mistaken = Roles(roles.admin_url, roles.owner_url.set(username=admin), roles.app_url, roles.programs)

    made = mistaken.make()

    assert made.returncode != 0
    assert "may do more than it should" in made.stderr


@pytest.fixture
def managed(make_database: Callable[[], URL], programs: Path) -> Iterator[Roles]:
    """A database whose administrator is no superuser, as with most hosted services."""
    database = make_database()
    name, password = f"admin_{secrets.token_hex(3)}", secrets.token_hex(8)
    with connected(database).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{password}'"))
        connection.execute(text(f"ALTER DATABASE {database.database} OWNER TO {name}"))
        try:
            with _roles(database, programs) as roles:
                yield replace(roles, admin_url=database.set(username=name, password=password))
        finally:
            connection.execute(text(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER"))
            connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))


def test_an_administrator_without_superuser_rights_hands_over_as_well(managed: Roles) -> None:
    assert run_alembic(managed.admin_url, "upgrade", "head").returncode == 0

    for _ in range(2):
        made = managed.make()
        assert (made.returncode, made.stderr) == (0, "")

    with connected(managed.app_url).begin() as connection:
        connection.execute(text("INSERT INTO schedules VALUES ('a', now())"))
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(text("TRUNCATE schedules"))
    assert run_alembic(managed.owner_url, "downgrade", "-1").returncode == 0
    assert run_alembic(managed.owner_url, "upgrade", "head").returncode == 0


@pytest.fixture
def served(migrated: Roles, mail_server: MailServer, tmp_path: Path) -> Iterator[httpx2.Client]:
    """A server that connects as the servers' role, and a client of it."""
    there = {
        "DATABASE_URL": address(migrated.app_url), "WORKERS": "2", "MAIL_ENABLED": "true",
        "CLEANUP_INTERVAL_MINUTES": "1",
        "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mail_server.port), "SMTP_TLS": "none",
    }  # fmt: skip
    with _server(tmp_path, there) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.mark.slow
def test_all_that_servers_and_operators_do_works_as_that_role(
    served: httpx2.Client, migrated: Roles, mail_server: MailServer
) -> None:
    def ask(status: int, method: str, path: str, **more: Any) -> Any:
        answer = served.request(method, path, **more)
        assert answer.status_code == status, (method, path, answer.text)
        return answer.json() if answer.content else None

    account = {"email": "ada@example.com", "password": PASSWORD}
    key = {"Idempotency-Key": "once"}
    assert ask(201, "POST", "/users", json=account, headers=key) == ask(
        201, "POST", "/users", json=account, headers=key
    )
    form = {"username": "ada@example.com", "password": PASSWORD}
    for _ in range(2):
        ask(403, "POST", "/login", data={**form, "password": "wrong"})
    pair = ask(200, "POST", "/login", data=form)
    pair = ask(200, "POST", "/token/refresh", json={"refresh_token": pair["refresh_token"]})
    served.headers["Authorization"] = f"Bearer {pair['access_token']}"

    post = ask(
        201, "POST", "/posts", json={"title": "first", "content": "words to find"}, headers={"Idempotency-Key": "p"}
    )
    path = f"/posts/{post['id']}"
    ask(201, "POST", "/vote", json={"post_id": post["id"], "vote_dir": 1})
    assert ask(200, "DELETE", f"{path}/vote")["votes"] == 0
    assert ask(200, "PUT", f"{path}/vote")["votes"] == 1
    ask(200, "PATCH", path, json={"title": "second"})
    for query in ("", "?sort=top", "?sort=hot", "?search=find", "?published=false"):
        ask(200, "GET", f"/posts{query}")
    draft = ask(201, "POST", "/posts", json={"title": "draft", "content": "…", "published": False})
    ask(204, "DELETE", f"/posts/{draft['id']}")

    ask(200, "GET", "/users/me/votes")
    ask(200, "GET", "/sessions")
    ask(204, "DELETE", "/sessions")
    api_key = ask(201, "POST", "/api-keys", json={"name": "a key", "scopes": ["read"]})
    ask(200, "GET", "/posts", headers={"Authorization": f"Bearer {api_key['key']}"})
    secret = ask(200, "POST", "/users/me/totp", json={"current_password": PASSWORD})["secret"]
    ask(200, "POST", "/users/me/totp/confirm", json={"code": pyotp.TOTP(secret).now()})
    assert run_app(migrated.app_url, "user", "disable-totp", "ada@example.com").returncode == 0
    ask(200, "PATCH", "/users/me", json={"username": "ada"})
    ask(200, "GET", "/users/me/security-events")

    ask(202, "POST", "/password-reset", json={"email": "ada@example.com"})
    wait_until(lambda: any("/password-reset#" in mail.text for mail in mail_server.received))
    (mail,) = (mail for mail in mail_server.received if "/password-reset#" in mail.text)
    ask(204, "POST", "/password-reset/confirm", json={"token": mail.token, "password": "a whole new password"})
    ask(401, "GET", "/posts")

    operator = ("promote", "ada", "admin"), ("sessions", "ada", "--end-all"), ("disable", "ada"), ("enable", "ada")
    for command in (("cleanup",), ("recount",), ("doctor", "--full"), *(("user", *words) for words in operator)):
        done = run_app(migrated.app_url, *command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    made = run_app(migrated.app_url, "user", "create", "bob@example.com", "--role", "admin", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    token = ask(200, "POST", "/login", data={**form, "password": "a whole new password"})["access_token"]
    served.headers["Authorization"] = f"Bearer {token}"
    ask(200, "GET", "/users")
    ask(204, "DELETE", "/users/me")
    with connected(migrated.app_url).connect() as connection:
        for table in ("posts", "post_stats", "votes"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def role_finding(url: URL, environment: str) -> str:
    settings = get_settings().model_copy(update={"environment": environment})
    (found,) = (
        str(finding) for finding in doctor.examine(connected(url), settings, is_full=False)
        if finding.what.startswith("role ")
    )  # fmt: skip
    return found


def test_doctor_says_what_a_role_may_do_that_it_need_not(migrated: Roles) -> None:
    app, owner = migrated.app_url.username, migrated.owner_url.username
    for environment, level in (("development", "ok  "), ("production", "warn")):
        assert role_finding(migrated.app_url, environment) == f"ok    role {app}: may read and write rows only"
        found = role_finding(migrated.owner_url, environment)
        rights = "make temporary tables, make tables, change and drop tables, empty tables"
        assert found.startswith(f"{level}  role {owner}: may also {rights}; ")
        assert "deploy/postgres/roles.sql" in found


def test_doctor_finds_each_right_too_many(migrated: Roles) -> None:
    app = migrated.app_url.username
    for right, grant, revoke in (
        ("make roles", f"ALTER ROLE {app} CREATEROLE", f"ALTER ROLE {app} NOCREATEROLE"),
        ("make databases", f"ALTER ROLE {app} CREATEDB", f"ALTER ROLE {app} NOCREATEDB"),
        ("pass by row security", f"ALTER ROLE {app} BYPASSRLS", f"ALTER ROLE {app} NOBYPASSRLS"),
        (
            "act as pg_read_server_files",
            f"GRANT pg_read_server_files TO {app}",
            f"REVOKE pg_read_server_files FROM {app}",
        ),
        ("make tables", f"GRANT CREATE ON SCHEMA public TO {app}", f"REVOKE CREATE ON SCHEMA public FROM {app}"),
        ("empty tables", f"GRANT TRUNCATE ON votes TO {app}", f"REVOKE TRUNCATE ON votes FROM {app}"),
        ("", f"GRANT pg_monitor TO {app}", f"REVOKE pg_monitor FROM {app}"),
    ):
        with connected(migrated.admin_url).begin() as connection:
            connection.execute(text(grant))
        found = role_finding(migrated.app_url, "production")
        with connected(migrated.admin_url).begin() as connection:
            connection.execute(text(revoke))
        if right:
            assert found.startswith(f"warn  role {app}: may also {right}; ")
        else:  # To look at statistics is no harm.
            assert found == f"ok    role {app}: may read and write rows only"
