"""Results of one run, parsed from the output of wrk and pgbench."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Counted:
    """Counts of a load generator in one run.

    `problem` is the reason to discard the run, if any.
    """

    requests: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    bytes: int = 0
    problem: str | None = None

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Run:
    """One run of one entry."""

    rate: float
    p50_ms: float | None
    p99_ms: float | None
    server_cpu_ms: float
    postgres_cpu_ms: float
    worker_megabytes: float | None
    others_cores: float
    problem: str | None

    def to_json(self) -> dict[str, object]:
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if value is not None
        }


def parse_wrk(output: str) -> Counted:
    """Parse the output of lua/summary.lua."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        last = [line for line in output.splitlines() if line.strip()]
        return Counted(0, 0.0, None, None, problem=f"wrk: {last[-1] if last else 'no output'}")
    said: dict[str, Any] = json.loads(lines[-1])
    problems = [
        f"{said[name]} {meaning}"
        for name, meaning in (("bad_statuses", "answers with status 4xx or 5xx"), ("socket_errors", "socket errors"))
        if said[name]
    ]
    if not said["requests"]:
        problems.append("no answer at all")
    return Counted(
        said["requests"],
        said["microseconds"] / 1e6,
        said["p50_us"] / 1e3,
        said["p99_us"] / 1e3,
        said["bytes"],
        ", ".join(problems) or None,
    )


def parse_pgbench(output: str, *, statements_per_transaction: int) -> Counted:
    """Parse pgbench's summary, in statements."""
    rate = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", output, re.MULTILINE)
    done = re.search(r"^number of transactions actually processed: ([0-9]+)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: ([0-9]+)", output, re.MULTILINE)
    if rate is None or done is None:
        last = [line for line in output.splitlines() if "error" in line.lower()] or output.splitlines()[-1:]
        return Counted(0, 0.0, None, None, problem=f"pgbench: {last[0] if last else 'no output'}")
    transactions = int(done[1])
    return Counted(
        transactions * statements_per_transaction,
        transactions / float(rate[1]) if float(rate[1]) else 0.0,
        None,
        None,
        problem=f"{failed[1]} transactions failed" if failed and int(failed[1]) else None,
    )
