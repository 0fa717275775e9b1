"""`python -m app …` in real processes: output, exit codes, signals, and what is left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text
from typer.testing import CliRunner

from app.cli.commands import COMMANDS, HIDDEN, cli, load
from app.mail import outbox
from tests.conftest import ROOT, administration
from tests.fixtures import Person, free_port
from tests.mail_server import MailServer
from tests.races.waiting import wait_until

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
TIMEOUT_SECONDS = 60


def app(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the application to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class Running:
    """A command of the application that is running in a session of its own."""

    def __init__(self, log: Path, command: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *command],
                cwd=root,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(pattern, self.said):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"it did not say {pattern}: {self.said}")

    def end(self, number: int, *, whole_group: bool = False) -> int:
        """Signal it, or, as a terminal does, its whole group; return the exit code."""
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        return self.process.wait(timeout=TIMEOUT_SECONDS)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command: `start("serve", WORKERS="2")`."""
    running: list[Running] = []

    def begin(*command: str, root: Path = ROOT, **environment: str) -> Running:
        environment = {"PORT": "0", "HOST": "127.0.0.1", **environment}
        running.append(Running(tmp_path / f"log-{len(running)}", command, root, environment))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.end(signal.SIGTERM)


@pytest.fixture
def copy_of_the_project() -> Iterator[Path]:
    """The project with a `.local` of its own, where the server's account can reach it."""
    root = Path(tempfile.mkdtemp(prefix="social-posts-"))
    root.chmod(0o711)
    for name in ("app", "alembic", "web"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", root)
    yield root
    shutil.rmtree(root)


def test_help_names_every_command_and_every_option_is_explained() -> None:
    overview = app("--help")

    assert overview.returncode == 0
    for command in ("run", "serve", "worker", "seed", "cleanup", "openapi", "adopt", "recount", "doctor"):
        assert re.search(rf"^\W*{command}\s+\S", overview.stdout, re.MULTILINE)
        help_ = CliRunner().invoke(cli, [command, "--help"])  # In this process, as each start takes a second.
        assert help_.exit_code == 0
        assert command != "seed" or "--votes" in help_.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in HIDDEN])
def test_line_of_a_command_in_the_overview_is_the_first_paragraph_of_its_help(name: str) -> None:
    first = (load(name).help or "").split("\n\n", maxsplit=1)[0]

    assert COMMANDS[name][1] == " ".join(first.split())


def test_overview_imports_no_command() -> None:
    program = """
import sys
from app.cli.commands import COMMANDS, HIDDEN, cli, load
try:
    cli(["--help"])
except SystemExit:
    print([name for name in ("fastapi", "alembic", "sqlalchemy.orm", "passlib") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines()[-1] == "[]"


def test_unknown_command_is_refused_without_a_traceback() -> None:
    refused = app("fly")

    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_serve_without_a_database_is_refused_in_one_line() -> None:
    refused = app("serve", DATABASE_URL="")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "set DATABASE_URL" in refused.stderr


@pytest.mark.parametrize("command", ["run", "seed", "cleanup", "adopt", "recount", "doctor"])
def test_unreachable_database_is_reported_in_one_line(command: str) -> None:
    refused = app(command, DATABASE_URL=NOWHERE, PORT="0")

    assert refused.returncode == 1
    assert re.fullmatch("error: .*Connection refused.*\n", refused.stderr)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("command", ["run", "serve", "seed", "cleanup", "adopt", "recount", "doctor"])
def test_invalid_setting_is_reported_in_one_line(command: str) -> None:
    refused = app(command, SECRET_KEY="short")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: SECRET_KEY is shorter than 32 bytes")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_occupied_port_is_reported_in_one_line_before_anything_starts(start: Start, workers: str) -> None:
    first = start("serve", WORKERS=workers)
    port = first.wait_for(r"serving on http://127.0.0.1:(\d+)")

    refused = app("run", PORT=port, WORKERS=workers)

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert refused.stderr.count("\n") == 1


def test_a_host_that_conda_set_is_refused_with_what_to_do() -> None:
    refused = app("serve", HOST="x86_64-conda-linux-gnu", PORT="0")

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: cannot listen on x86_64-conda-linux-gnu:0")
    assert "unset HOST" in line


def test_several_workers_without_a_folder_for_temporary_files_are_refused_with_what_to_do() -> None:
    without_a_folder = "import tempfile; tempfile.tempdir = '/nowhere'; from app.cli.commands import main; main()"
    refused = subprocess.run(
        [sys.executable, "-c", without_a_folder, "serve"], cwd=ROOT, env=os.environ | {"WORKERS": "2", "PORT": "0"},
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: several workers need a folder for temporary files")
    assert "TMPDIR" in line


@pytest.mark.parametrize("command", ["run", "serve"])
def test_local_folder_that_cannot_be_written_stops_the_start_with_what_to_do(
    start: Start, copy_of_the_project: Path, command: str
) -> None:
    (copy_of_the_project / ".local").write_text("")  # Root may write to folders of any mode.

    server = start(command, root=copy_of_the_project, SECRET_KEY="")

    assert server.process.wait(TIMEOUT_SECONDS) == 1
    (line,) = [line for line in server.said.splitlines() if not line.startswith("INFO")]
    assert line.startswith(f"error: the key in {copy_of_the_project}/.local/secret_key cannot be kept (File exists)")
    assert line.endswith("or set SECRET_KEY")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signal_ends_the_server_without_a_traceback(start: Start, workers: str, number: int, code: int) -> None:
    server = start("serve", WORKERS=workers)
    address = server.wait_for(r"serving on (http://\S+)")
    assert httpx2.get(f"{address}/readyz").status_code == 200

    assert server.end(number, whole_group=number == signal.SIGINT) == code

    assert "Traceback" not in server.said
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{address}/livez")


def test_killed_server_with_workers_leaves_its_port_free(start: Start) -> None:
    port = str(free_port())
    for _ in range(2):
        server = start("serve", WORKERS="2", PORT=port)
        address = server.wait_for(r"serving on (http://\S+)")
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                httpx2.get(f"{address}/livez")
            except httpx2.TransportError:
                break
            time.sleep(0.1)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_request_is_logged_in_one_line(start: Start, workers: str) -> None:
    server = start("serve", WORKERS=workers)
    address = server.wait_for(r"serving on (http://\S+)")

    httpx2.get(f"{address}/posts", headers={"X-Request-ID": "the-request-of-this-test"})

    # The line is written after the answer has left, so it may come a moment later than the answer.
    server.wait_for(r"(?m)^(INFO app.access GET '/posts' 401 \S+ms the-request-of-this-test)$")


def test_production_with_the_defaults_of_the_tutorial_starts_and_logs_one_warning(start: Start) -> None:
    production = {"ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10", "LOG_FORMAT": "text", "WORKERS": "2"}

    warned = start("serve", TUTORIAL_DEFAULTS="true", **production)
    warned.wait_for(r"(WARNING app TUTORIAL_DEFAULTS=true in production: )")

    assert warned.end(signal.SIGTERM) == 0
    assert warned.said.count("TUTORIAL_DEFAULTS") == 1


def test_server_on_an_unmigrated_database_says_how_to_repair_it(start: Start, database: Engine) -> None:
    name = f"empty_{os.getpid()}"
    with administration(database.url) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    url = database.url.set(database=name).render_as_string(hide_password=False)
    try:
        server = start("serve", DATABASE_URL=url)
        address = server.wait_for(r"serving on (http://\S+)")
        answer = httpx2.get(f"{address}/readyz")

        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "alembic upgrade head" in answer.json()["detail"]
        server.wait_for("(WARNING app not ready: .*alembic upgrade head)")
        refused = app("seed", DATABASE_URL=url)
        assert refused.returncode == 1
        assert "alembic upgrade head" in refused.stderr
        assert refused.stderr.count("\n") == 1
        server.end(signal.SIGTERM)
    finally:
        with administration(database.url) as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_server_whose_database_is_away_starts_and_says_so(start: Start) -> None:
    server = start("serve", DATABASE_URL=NOWHERE)

    server.wait_for("(WARNING app not ready: )")
    assert server.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_worker_does_the_background_work_of_a_server_and_finishes_it_before_it_ends(
    start: Start, connection: Connection, person: Person, mail_server: MailServer
) -> None:
    connection.execute(
        text("""
            INSERT INTO idempotency_keys (key, fingerprint, status, body, expires_at) VALUES ('key', '', 201, '', now())
        """)
    )
    server = start("serve", MAIL_ENABLED="false", CLEANUP_INTERVAL_MINUTES="0")
    address = server.wait_for(r"serving on (http://\S+)")
    assert httpx2.post(f"{address}/password-reset", json={"email": person.email}).status_code == 202
    time.sleep(3)  # Longer than the pause of mail delivery.
    left = "(SELECT count(*) FROM outgoing_mails) + (SELECT count(*) FROM idempotency_keys)"
    assert connection.scalar(text(f"SELECT {left}")) == 2

    smtp = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mail_server.port), "SMTP_TLS": "none"}
    # Its first run comes within a fifth of the interval.
    worker = start("worker", MAIL_ENABLED="true", CLEANUP_INTERVAL_MINUTES="1", **smtp)
    wait_until(connection, f"SELECT {left} = 0")
    assert [mail.address for mail in mail_server.received] == [person.email]
    for n in range(200):
        outbox.post(connection, "email_changed", f"person{n}@example.com")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(mail_server.received) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert worker.end(signal.SIGTERM) == 0

    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 201 - len(mail_server.received)
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails WHERE attempt_count > 0")) == 0
    assert "Traceback" not in worker.said


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"MAIL_ENABLED": "false", "CLEANUP_INTERVAL_MINUTES": "0"}, "a worker has nothing to do"),
        ({"MAIL_ENABLED": "true", "DATABASE_URL": ""}, "no database is configured"),
    ],
)
def test_worker_that_could_do_nothing_says_so_in_one_line(settings: dict[str, str], reason: str) -> None:
    refused = app("worker", **settings)

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert reason in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_run_needs_no_database_and_again_after_a_kill(copy_of_the_project: Path, start: Start, workers: str) -> None:
    def begin() -> tuple[Running, str]:
        server = start("run", root=copy_of_the_project, DATABASE_URL="", WORKERS=workers)
        return server, server.wait_for(r"Serving +(http://\S+)")

    killed, address = begin()
    assert httpx2.get(f"{address}/readyz").status_code == 200
    account = {"email": "ada@example.com", "password": "correct horse battery"}
    assert httpx2.post(f"{address}/users", json=account).status_code == 201
    killed.end(signal.SIGKILL)

    server, address = begin()
    assert httpx2.post(f"{address}/users", json=account).status_code == 409
    assert "/docs" in server.said
    assert server.end(signal.SIGINT, whole_group=True) == 130

    assert "Traceback" not in server.said
    assert not (copy_of_the_project / ".local" / "postgres" / "data" / "postmaster.pid").exists()


def test_run_names_the_folder_that_has_the_data(copy_of_the_project: Path, start: Start) -> None:
    copy_of_the_project.chmod(0o700)  # Root hands the server to an account that cannot reach this.
    server = start("run", root=copy_of_the_project, DATABASE_URL="")

    named = copy_of_the_project / server.wait_for(r"data in (\S+)")

    data = (copy_of_the_project / ".local" / "postgres").resolve()
    assert data.is_relative_to(named)
    assert server.end(signal.SIGINT, whole_group=True) == 130
    shutil.rmtree(data)


def test_seed_fills_the_database_and_shows_its_progress_on_stderr(connection: Connection) -> None:
    done = app("seed", "--users", "50", "--posts", "100", "--votes", "500", "--pictures", "2", "--reports", "4")

    assert done.returncode == 0, done.stderr
    amounts = "50 users, 100 posts, 500 votes, 300 comments, 500 follows, 2 pictures and 4 reports"
    assert f"Added {amounts} in " in done.stdout
    assert "The password of each user is: " in done.stdout
    assert "500/500" in done.stderr
    assert "500/500" not in done.stdout
    assert connection.scalar(text("SELECT count(*) FROM votes")) == 500


def test_seed_refuses_production_unless_forced_and_then_its_users_cannot_sign_in(connection: Connection) -> None:
    production = {"ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10"}
    amounts = ("--users", "5", "--posts", "5", "--votes", "5")

    refused = app("seed", *amounts, **production)
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert connection.scalar(text("SELECT count(*) FROM users")) == 0

    done = app("seed", *amounts, "--yes", **production)
    assert done.returncode == 0, done.stderr
    assert "password" not in done.stdout
    assert connection.scalar(text("SELECT count(*) FROM users")) == 5


@pytest.mark.usefixtures("database")
def test_seed_that_cannot_be_made_is_refused_in_one_line() -> None:
    refused = app("seed", "--users", "2", "--posts", "2", "--votes", "100")

    assert refused.returncode == 1
    assert "error: " in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_recount_reports_differences_and_repairs_them(
    connection: Connection, make_post: Callable[..., int], person: Person
) -> None:
    post_id = make_post(person)
    connection.execute(text("UPDATE post_stats SET votes = 5"))

    checked = app("recount", "--check")
    mended = app("recount")
    again = app("recount", "--check")

    assert (checked.returncode, mended.returncode, again.returncode) == (1, 0, 0)
    assert checked.stdout == f"wrong counts up to posts {post_id}: {post_id}\n1 wrong, 0 repaired\n"
    assert mended.stdout.endswith("1 wrong, 1 repaired\n")
    assert again.stdout == "0 wrong, 0 repaired\n"


def test_cleanup_says_what_it_removed(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO allowances (limit_name, key, used_at, expires_at)"
            " VALUES ('login', '', '{}', now() - interval '1 day')"
        )
    )

    done = app("cleanup")

    assert done.returncode == 0, done.stderr
    assert "allowances: 1 removed" in done.stdout
