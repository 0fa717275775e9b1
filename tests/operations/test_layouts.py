"""The layouts of docs/deployment.md use two roles: a release with a migration needs no right that servers have.

Neither systemd nor Docker runs here. So each layout's commands run by hand, with the environment that systemd, Compose
or Heroku would make of the units, docker-compose.yml or the Procfile.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import yaml
from psycopg2.errorcodes import INSUFFICIENT_PRIVILEGE
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tests.conftest import ROOT
from tests.fixtures import PASSWORD, free_port
from tests.fixtures import _wait_until_ready as wait_until_ready
from tests.migrations.conftest import address
from tests.operations.conftest import Roles
from tests.packaging.test_compose import interpolated

TIMEOUT_SECONDS = 120
NEXT_MIGRATION = '''"""Add later.

Revision ID: 9999
Revises: {head}
"""

from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("CREATE TABLE later (id serial PRIMARY KEY, what text)")
    op.execute("ALTER TABLE posts ADD COLUMN later text")


def downgrade() -> None:
    op.execute("ALTER TABLE posts DROP COLUMN later")
    op.execute("DROP TABLE later")
'''


@dataclass(frozen=True)
class Command:
    """A command line with its whole environment."""

    arguments: list[str]
    environment: Mapping[str, str]

    def run(self, checkout: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments, cwd=checkout, env=self.environment,
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The steps before each start, and the server."""

    steps: list[Command]
    server: Command


def on_this_machine(environment: Mapping[str, str], programs: Path) -> dict[str, str]:
    """Add what these machines have, and a port."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]])
    return {"PATH": path, "LC_ALL": "C.UTF-8", "PASSWORD_HASH_ROUNDS": "10", "WORKERS": "1", **environment}


def write_settings(roles: Roles, etc: Path) -> None:
    """Write the files of /etc/social-posts that docs/deployment.md describes."""
    (etc / "environment").write_text(
        f"SECRET_KEY={'0123456789abcdef' * 3}\nDATABASE_URL={address(roles.app_url)}\nTRUSTED_PROXIES=127.0.0.1\n"
    )
    (etc / "owner").write_text(
        f"DATABASE_DIRECT_URL={address(roles.owner_url.set(password=None))}\nPGPASSWORD={roles.owner_url.password}\n"
    )


def command_of_unit(unit: str, roles: Roles, etc: Path) -> Command:
    """Return ExecStart with the environment that systemd gives it."""
    lines = (ROOT / "deploy" / "systemd" / f"{unit}.service").read_text().splitlines()
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith("Environment="):
            found |= dict(pair.split("=", 1) for pair in shlex.split(line.removeprefix("Environment=")))
    # systemd lets the files win over the lines.
    for line in lines:
        if line.startswith("EnvironmentFile="):
            path = etc / Path(line.removeprefix("EnvironmentFile=")).name
            found |= dict(pair.split("=", 1) for pair in path.read_text().splitlines())
    (start,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    program = start.replace("/opt/social-posts/.venv/bin", str(Path(sys.executable).parent))
    program = program.replace("/opt/social-posts", str(ROOT)).replace("/var/lib", str(etc))
    return Command(shlex.split(program), on_this_machine(found, roles.programs))


def by_systemd(roles: Roles, etc: Path) -> Layout:
    write_settings(roles, etc)
    return Layout([command_of_unit("social-posts-migrate", roles, etc)], command_of_unit("social-posts", roles, etc))


def by_compose(roles: Roles, folder: Path) -> Layout:
    """Each service, with .env and .env.owner as docs/deployment.md describes them."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    files = {
        ".env": {
            "SECRET_KEY": "0123456789abcdef" * 3, "DATABASE_PASSWORD": str(roles.app_url.password),
            "DATABASE_NAME": str(roles.admin_url.database), "POSTGRES_USER": str(roles.admin_url.username),
        },
        ".env.owner": {
            "POSTGRES_PASSWORD": str(roles.admin_url.password), "OWNER_PASSWORD": str(roles.owner_url.password),
        },
    }  # fmt: skip
    renamed = {"social_posts": roles.app_url.username, "social_posts_owner": roles.owner_url.username}
    roles_sql = (ROOT / "deploy" / "postgres" / "roles.sql").read_text()
    for name, other in renamed.items():
        roles_sql, count = re.subn(rf"(\\set \w+) {name}$", rf"\1 {other}", roles_sql, flags=re.MULTILINE)
        assert count == 1
    (folder / "roles.sql").write_text(roles_sql)

    def command(name: str) -> Command:
        service = services[name]
        found: dict[str, str] = {}
        for file in [service["env_file"]] if isinstance(service["env_file"], str) else service["env_file"]:
            found |= files[file]
        found |= {key: interpolated(value, files[".env"]) for key, value in service["environment"].items()}
        there = {"DATABASE_HOSTNAME": roles.admin_url.host, "DATABASE_PORT": str(roles.admin_url.port)}
        there |= {"PGHOST": roles.admin_url.host, "HOST": "127.0.0.1"}
        there |= {"DATABASE_USERNAME": renamed.get(found.get("DATABASE_USERNAME", ""))}
        found |= {key: str(value) for key, value in there.items() if key in found}
        if "PGHOST" in found:
            found["PGPORT"] = str(roles.admin_url.port)
        arguments = service.get("command", ["python", "-m", "app", "serve"])
        return Command(
            [part.replace("$$", "$").replace("/roles.sql", f"{folder}/roles.sql") for part in arguments],
            on_this_machine(found, roles.programs),
        )

    return Layout([command("roles"), command("migrate")], command("api"))


def by_procfile(roles: Roles, _: Path) -> Layout:
    """Each line, with the variables that docs/deployment.md sets, which Heroku gives to every dyno."""
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    variables = on_this_machine(
        {
            "SECRET_KEY": "0123456789abcdef" * 3,
            "DATABASE_URL": address(roles.owner_url),
            "APP_DATABASE_URL": address(roles.app_url),
        },
        roles.programs,
    )
    release, web = (Command(["/bin/sh", "-c", lines[name]], variables) for name in ("release", "web"))
    return Layout([release], web)


LAYOUTS = {"systemd": by_systemd, "compose": by_compose, "procfile": by_procfile}


@pytest.fixture
def layout(request: pytest.FixtureRequest, make_roles: Callable[[], Roles], tmp_path: Path) -> tuple[Layout, Roles]:
    """The layout on an empty database, with both roles unless it makes them itself."""
    roles = make_roles()
    if request.param != "compose":
        assert roles.make().returncode == 0
    return LAYOUTS[request.param](roles, tmp_path), roles


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """A checkout with a migration that adds a table and a column."""
    checkout = tmp_path / "next"
    shutil.copytree(ROOT / "app", checkout / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "alembic", checkout / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", checkout)
    newest = max(path.name.split("_")[3] for path in (checkout / "alembic" / "versions").glob("*.py"))
    (checkout / "alembic" / "versions" / "2099_01_01_9999_later.py").write_text(NEXT_MIGRATION.format(head=newest))
    return checkout


@contextmanager
def serving(server: Command, checkout: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.arguments, cwd=checkout, env={**server.environment, "PORT": str(port)},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(timeout=30)


def write_and_read(url: str, name: str) -> None:
    """Sign up, write a post and list it."""
    account = {"email": f"{name}@example.com", "password": PASSWORD}
    with httpx2.Client(base_url=url, timeout=30) as client:
        assert client.post("/users", json=account).status_code == 201
        form = {"username": account["email"], "password": PASSWORD}
        token = client.post("/login", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert client.post("/posts", json={"title": name, "content": "…"}, headers=headers).status_code == 201
        assert client.get("/posts", headers=headers).json()[0]["Post"]["title"] == name


REFUSED_TO_SERVERS = (
    "CREATE TABLE more (id int)",
    "ALTER TABLE posts ADD COLUMN more int",
    "ALTER TABLE later ADD COLUMN more int",
    "DROP TABLE later",
    "TRUNCATE votes",
)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_a_release_with_a_migration_is_served_by_a_role_that_cannot_migrate(
    layout: tuple[Layout, Roles], next_release: Path, tmp_path: Path
) -> None:
    (steps, server), roles = (layout[0].steps, layout[0].server), layout[1]
    for step in steps:
        done = step.run(ROOT)
        assert done.returncode == 0, done.stderr

    with serving(server, ROOT, tmp_path / "old.log") as (url, process):
        write_and_read(url, "before")
        environment = Path(f"/proc/{process.pid}/environ").read_text()
        assert str(roles.app_url.password) in environment
        assert str(roles.owner_url.password) not in environment
        assert "POSTGRES_PASSWORD" not in environment
        for step in steps:
            done = step.run(next_release)
            assert done.returncode == 0, done.stderr
        write_and_read(url, "meanwhile")
    with serving(server, next_release, tmp_path / "new.log") as (url, _):
        write_and_read(url, "after")

    with create_engine(roles.app_url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
        connection.execute(text("INSERT INTO later (what) VALUES ('written')"))
        assert connection.scalars(text("UPDATE posts SET later = title RETURNING later")).all() == [
            "before", "meanwhile", "after",
        ]  # fmt: skip
        for statement in REFUSED_TO_SERVERS:
            with pytest.raises(DBAPIError) as refused:
                connection.execute(text(statement))
            assert getattr(refused.value.orig, "pgcode", None) == INSUFFICIENT_PRIVILEGE, statement


@pytest.mark.slow
def test_compose_hands_over_a_database_that_the_administrator_has_served(
    make_roles: Callable[[], Roles], tmp_path: Path
) -> None:
    roles = make_roles()
    steps = by_compose(roles, tmp_path).steps
    with create_engine(roles.admin_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id serial PRIMARY KEY)"))

    for step in [*steps, *steps]:
        done = step.run(ROOT)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr

    with create_engine(roles.app_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("INSERT INTO theirs DEFAULT VALUES"))
        owners = text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert connection.scalars(owners).all() == [roles.owner_url.username]


def test_the_servers_passwords_are_the_only_ones_in_the_files_that_servers_read(
    make_roles: Callable[[], Roles], tmp_path: Path
) -> None:
    roles = make_roles()
    for layout in (by_systemd(roles, tmp_path), by_compose(roles, tmp_path)):
        given = {*layout.server.environment.values()}
        assert not any(str(roles.owner_url.password) in value for value in given)
        assert not {"POSTGRES_PASSWORD", "OWNER_PASSWORD", "PGPASSWORD", "DATABASE_DIRECT_URL"} & {
            *layout.server.environment
        }
        assert str(make_url(address(roles.app_url)).password) in " ".join(given)
