"""Contestants: this application and its peers, each a server with two workers on loopback."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import statements
from bench.data import Dataset
from bench.environment import PYTHON, ROOT, WORK, BenchError, for_children
from bench.scenarios import OURS

PEERS = ROOT / "bench" / "peers"
GO_PEER, NODE_PEER = "go_pgx", "fastify_pg"
# Where Debian's packages put the sources of Go libraries.
GO_SOURCES = Path("/usr/share/gocode")
GO_PACKAGES = "apt-get install golang-go golang-github-jackc-pgx-v4-dev"

WORKERS = 2
READY_WITHIN_SECONDS = 60
STOPPED_WITHIN_SECONDS = 15


@dataclass(frozen=True)
class Server:
    """A running contestant."""

    name: str
    port: int
    process: psutil.Process
    ready_after_seconds: float

    @property
    def processes(self) -> list[psutil.Process]:
        """The process that was started and all its descendants."""
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    @property
    def worker_megabytes(self) -> float:
        """Resident memory of the largest worker."""
        sizes = [0]
        for process in self.processes[1:] or self.processes:
            with suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
        return max(sizes) / 1e6

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self.request("GET", path, headers)

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request on a new connection.

        Return status, headers (names in lower case) and body.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def constant_body(dataset: Dataset) -> Path:
    """Return the file with the body of `constant`: a page that this application returned before."""
    return dataset.folder / "page.json"


def install(name: str) -> None:
    """Build or install what this contestant needs beyond the Python packages.

    Raises `BenchError` where that is not possible: its toolchain or its libraries are missing.
    """
    if name == GO_PEER:
        _require_programs("go", otherwise=GO_PACKAGES)
        if not (GO_SOURCES / "src" / "github.com" / "jackc" / "pgx" / "v4").exists():
            raise BenchError(f"the library pgx is not installed: {GO_PACKAGES}")
        # Without modules, because Debian's packages of libraries have none.
        settings = {"GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "CGO_ENABLED": "0"}
        _install(["go", "build", "-o", str(WORK / GO_PEER), "."], PEERS / GO_PEER, settings)
    if name == NODE_PEER:
        _require_programs("node", "npm", otherwise="install Node.js 20 or newer")
        folder = WORK / NODE_PEER
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("server.js", "package.json", "package-lock.json"):
            shutil.copyfile(PEERS / NODE_PEER / file, folder / file)
        lock, installed = folder / "package-lock.json", folder / "installed.json"
        if not installed.exists() or installed.read_bytes() != lock.read_bytes():
            _install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, {})
            shutil.copyfile(lock, installed)


def versions() -> dict[str, str]:
    """Return the versions of installed toolchains and libraries of the peers in other languages."""
    commands = {
        "go": ["go", "env", "GOVERSION"],
        "pgx": ["dpkg-query", "--show", "--showformat=${Version}", "golang-github-jackc-pgx-v4-dev"],
        "node": ["node", "--version"],
    }
    found: dict[str, str] = json.loads((PEERS / NODE_PEER / "package.json").read_text())["dependencies"]
    for name, command in commands.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found |= {name: done.stdout.strip()} if done.returncode == 0 else {}
    return found


def _require_programs(*programs: str, otherwise: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise BenchError(f"{', '.join(missing)} not found: {otherwise}")


def _install(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise BenchError(f"`{' '.join(command[:2])}` failed: {words[-1] if words else 'no output'}")


@contextmanager
def running(name: str, dataset: Dataset, *, workers: int = WORKERS, **settings: str) -> Iterator[Server]:
    """Run a contestant during the block, with these settings in its environment.

    Wait until it is ready; stop all its processes at the end.
    """
    port = _free_port()
    shared = dataset.folder / "statements.json"
    statements.write(shared)
    environment = for_children(
        dataset.url,
        PORT=str(port),
        WORKERS=str(workers),
        CONSTANT_BODY=str(constant_body(dataset)),
        STATEMENTS=str(shared),
        **settings,
    )
    log = WORK / f"{name}-{dataset.name}.log"
    started_at = time.perf_counter()
    with log.open("wb") as output:
        # A separate session, so that Ctrl-C reaches only this process, which then stops the contestant.
        process = subprocess.Popen(
            _command(name, port, workers),
            env=environment,
            cwd=WORK,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(name, port, process, log)
        yield Server(name, port, psutil.Process(process.pid), time.perf_counter() - started_at)
    finally:
        _stop(process)


def _command(name: str, port: int, workers: int) -> list[str]:
    if name == OURS:
        return [PYTHON, "-m", "app", "serve"]
    if name == GO_PEER:
        return [str(WORK / GO_PEER)]
    if name == NODE_PEER:
        return ["node", str(WORK / NODE_PEER / "server.js")]
    options = f"--host 127.0.0.1 --port {port} --workers {workers} --loop uvloop --http httptools --no-access-log"
    return [PYTHON, "-m", "uvicorn", f"bench.peers.{name}:app", *options.split(), "--log-level", "warning"]


def _wait_until_ready(name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                connection.close()
                return
        time.sleep(0.01)
    words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise BenchError(f"{name} did not become ready: {words[-1] if words else 'no output'} (all of it: {log})")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Kill what is left of its session, which is also its process group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
