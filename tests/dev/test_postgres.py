"""The embedded server: every test makes a real cluster, most in processes of their own."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.dev import postgres
from app.dev.postgres import LocalPostgresError, running

FAST = {"fsync": "off", "shared_buffers": "8MB"}
PROJECT = Path(__file__).resolve().parents[2]
ORDINARY_UID = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")

# Another process of ours: it uses the server in the given folder until its standard input ends.
USER = f"""
import sys
from pathlib import Path
from app.dev.postgres import running
with running(Path(sys.argv[1]), options={FAST!r}) as url:
    print(url.render_as_string(hide_password=False), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[Path]:
    """A new folder that every account may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="social posts ")).resolve()
    folder.chmod(0o711)
    yield folder
    for link in folder.rglob("postgres"):
        if link.is_symlink():
            shutil.rmtree(link.resolve())
    shutil.rmtree(folder)


@pytest.fixture
def folder(parent: Path) -> Path:
    return parent / "postgres"


@pytest.fixture
def users() -> Iterator[list[subprocess.Popen[str]]]:
    """Started processes. Those that a failed test leaves are ended."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with process:
            process.terminate()


def start_user(users: list[subprocess.Popen[str]], folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, folder],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    users.append(process)
    return process


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0


def run_sql(url: URL | str, statement: str) -> list[object]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.scalars()) if result.returns_rows else []


def accepts_connections(url: URL | str) -> bool:
    address = make_url(url)
    assert address.host is not None
    assert address.port is not None
    try:
        socket.create_connection((address.host, address.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def postmaster_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def uid_of_server(folder: Path) -> int:
    return int(psutil.Process(postmaster_pid(folder)).uids().real)


def run_script(script: str, *arguments: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=PROJECT, input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_server_starts_speaks_utf_8_and_stops_with_its_only_user(folder: Path) -> None:
    with running(folder, options=FAST) as url:
        assert (url.drivername, url.host, url.database) == ("postgresql+psycopg2", "127.0.0.1", "social_posts")
        assert run_sql(url, "SHOW server_version_num")[0] >= "180000"  # type: ignore[operator]
        assert run_sql(url, "SHOW server_encoding") == ["UTF8"]
        assert run_sql(url, "SHOW unix_socket_directories") == [""]
        assert run_sql(url, "SHOW fsync") == ["off"]
        assert run_sql(url, "SELECT lower('ÄÉ')") == ["äé"]
    assert not accepts_connections(url)


def test_data_and_password_are_kept_between_runs(folder: Path) -> None:
    with running(folder, options=FAST) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with running(folder, options=FAST) as second:
        assert run_sql(second, "SELECT answer FROM kept") == [42]
    assert second.password == url.password


def test_a_wrong_password_is_refused_and_only_the_owner_can_read_the_right_one(folder: Path) -> None:
    with running(folder, options=FAST) as url, pytest.raises(psycopg2.OperationalError, match="password auth"):
        psycopg2.connect(host=url.host, port=url.port, user=url.username, password="wrong", dbname="postgres")
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600


def test_two_users_in_one_process_share_the_server_and_the_last_one_stops_it(folder: Path) -> None:
    with running(folder, options=FAST) as first:
        with running(folder, options=FAST) as second:
            assert first == second
        assert accepts_connections(first)
    assert not accepts_connections(first)


def test_two_processes_that_start_at_the_same_moment_share_one_server_and_the_last_one_stops_it(
    folder: Path, users: list[subprocess.Popen[str]]
) -> None:
    first, second = start_user(users, folder), start_user(users, folder)
    url = url_of(first)
    assert url
    assert url_of(second) == url
    leave(first)
    assert accepts_connections(url)
    leave(second)
    assert not accepts_connections(url)


def test_a_killed_user_leaves_a_server_that_the_next_one_joins_and_stops(
    folder: Path, users: list[subprocess.Popen[str]]
) -> None:
    killed = start_user(users, folder)
    url = url_of(killed)
    killed.kill()
    killed.wait()
    with running(folder) as joined:
        assert joined.render_as_string(hide_password=False) == url
    assert not accepts_connections(url)


def test_a_user_process_that_is_terminated_stops_the_server(folder: Path, users: list[subprocess.Popen[str]]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        started = start_user(users, folder)
        url = url_of(started)
        started.send_signal(number)
        assert started.wait(30) != 0
        assert not accepts_connections(url)


def test_an_exception_in_the_block_stops_the_server_and_passes_through_as_it_is(folder: Path) -> None:
    with pytest.raises(OSError, match="ours"), running(folder, options=FAST) as url:
        raise OSError("ours")
    assert not accepts_connections(url)


def test_a_killed_server_recovers_what_was_committed(folder: Path) -> None:
    with running(folder, options=FAST) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        # Its process outlives the server's first one for a moment, and holds on to the shared memory.
        busy = psycopg2.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
        os.kill(postmaster_pid(folder), signal.SIGKILL)
        with running(folder, options=FAST) as restarted:
            assert run_sql(restarted, "SELECT answer FROM kept") == [42]
        busy.close()
    assert not accepts_connections(restarted)


def test_a_process_id_that_belongs_to_another_process_after_a_reboot_is_no_obstacle(folder: Path) -> None:
    with running(folder, options=FAST) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        stale = (folder / "data" / "postmaster.pid").read_text().splitlines()
    owner = (folder / "data").stat()
    same_account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "60"], **same_account) as stranger:  # type: ignore[call-overload]
        try:
            (folder / "data" / "postmaster.pid").write_text("\n".join([str(stranger.pid), *stale[1:], ""]))
            with running(folder, options=FAST) as url:
                assert run_sql(url, "SELECT answer FROM kept") == [42]
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_cluster_that_was_never_finished_is_made_again(folder: Path, users: list[subprocess.Popen[str]]) -> None:
    killed = start_user(users, folder)
    deadline = time.monotonic() + 20
    while not list(folder.glob("data.new-*/base")) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert list(folder.glob("data.new-*"))
    assert not (folder / "data").exists()
    with running(folder, options=FAST) as url:
        assert accepts_connections(url)
    assert not list(folder.glob("data.new-*"))


def test_data_of_another_major_version_are_refused_in_one_line(folder: Path) -> None:
    with running(folder, options=FAST):
        pass
    (folder / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(LocalPostgresError, match=r"made by PostgreSQL 15, and this is 18: .*DATABASE_URL") as error:
        running(folder).__enter__()
    assert "\n" not in str(error.value)


def test_a_setting_that_the_server_refuses_is_reported_in_one_line(folder: Path) -> None:
    with pytest.raises(LocalPostgresError, match=r"no_such_setting.*DATABASE_URL") as error:
        running(folder, options={**FAST, "no_such_setting": "on"}).__enter__()
    assert "\n" not in str(error.value)


def test_missing_binaries_are_reported_in_one_line_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(LocalPostgresError, match=r"pip install -r requirements-local\.lock .* DATABASE_URL") as error:
        running(folder).__enter__()
    assert "\n" not in str(error.value)


def test_missing_or_foreign_binaries_are_reported_in_one_line(folder: Path) -> None:
    with pytest.raises(LocalPostgresError, match=r"missing or not for this system.*DATABASE_URL"):
        running(folder, binaries=folder / "bin").__enter__()


@pytest.mark.skipif(not Path("/usr/lib/postgresql/15/bin/initdb").exists(), reason="PostgreSQL 15 is not installed")
def test_the_binaries_of_another_postgresql_serve_as_well(folder: Path) -> None:
    with running(folder, options=FAST, binaries=Path("/usr/lib/postgresql/15/bin")) as url:
        assert run_sql(url, "SHOW server_version_num")[0] < "160000"  # type: ignore[operator]
        assert run_sql(url, "SELECT lower('ÄÉ')") == ["äé"]


def test_nothing_of_the_callers_environment_reaches_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "do not tell")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_XX")
    with running(folder, options=FAST) as url:
        run_sql(url, "CREATE TABLE environment (line text); COPY environment FROM PROGRAM 'env'")
        assert "TZ=UTC" in run_sql(url, "SELECT line FROM environment")
        assert run_sql(url, "SELECT line FROM environment WHERE line ~ 'SECRET_KEY|/nowhere|xx_XX'") == []


def permissions_above(folder: Path) -> dict[Path, tuple[int, int, int]]:
    return {path: ((s := path.stat()).st_mode, s.st_uid, s.st_gid) for path in folder.parents}


@as_root
def test_as_root_below_a_private_folder_no_permission_changes_and_the_data_are_kept_elsewhere(parent: Path) -> None:
    folder = parent / "private" / "project" / ".local" / "postgres"
    folder.parent.mkdir(parents=True)
    (parent / "private").chmod(0o700)
    before = permissions_above(folder)
    with running(folder, options=FAST) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert uid_of_server(folder) != 0
    with running(folder, options=FAST) as url:
        assert run_sql(url, "SELECT answer FROM kept") == [42]
    assert permissions_above(folder) == before
    assert folder.is_symlink()
    assert folder.readlink().parent == postgres.ELSEWHERE
    assert (folder / "data" / "PG_VERSION").exists()


@as_root
def test_as_root_with_a_private_environment_a_copy_of_the_binaries_serves(parent: Path) -> None:
    (parent / "private").mkdir(mode=0o700)
    packages = parent / "private" / "packages"
    found = postgres._packaged_binaries().parent.parent
    shutil.copytree(found, packages / found.name, ignore=shutil.ignore_patterns("pginstall", "*.a"))
    shutil.copytree(found.with_name(f"{found.name}.libs"), packages / f"{found.name}.libs")
    before = permissions_above(packages / found.name)
    script = USER.replace("import sys\n", f"import sys\nsys.path.insert(0, {str(packages)!r})\n", 1)
    for _ in range(2):
        run_script(script, parent / "postgres")
    assert permissions_above(packages / found.name) == before
    assert len(list((parent / "postgres").glob("programs-*/*/pginstall18/bin/postgres"))) == 1


@as_root
def test_data_of_root_that_became_unreachable_are_not_replaced_by_new_ones(parent: Path) -> None:
    folder = parent / "project" / "postgres"
    with running(folder, options=FAST):
        pass
    (parent / "project").chmod(0o700)
    with pytest.raises(LocalPostgresError, match=r"cannot reach its data in .* any more"):
        running(folder, options=FAST).__enter__()


@as_root
def test_an_ordinary_user_and_then_root_use_the_same_data(parent: Path) -> None:
    home = parent / "home"
    home.mkdir()
    os.chown(home, ORDINARY_UID, ORDINARY_UID)
    # Python's folder may be private to root, so the child becomes an ordinary user after its imports.
    become_other_user = (
        f"import os\nos.setgroups([])\nos.setgid({ORDINARY_UID})\nos.setuid({ORDINARY_UID})\nwith running("
    )
    as_other_user = USER.replace("with running(", become_other_user).replace(
        "options=", "binaries=Path(sys.argv[2]), options="
    )
    binaries = postgres._copied_binaries(postgres._packaged_binaries(), parent)
    run_script(as_other_user, home / "postgres", binaries)
    assert (home / "postgres" / "data").stat().st_uid == ORDINARY_UID
    with running(home / "postgres", options=FAST) as url:
        assert accepts_connections(url)
        assert uid_of_server(home / "postgres") == ORDINARY_UID
    run_script(as_other_user, home / "postgres", binaries)
