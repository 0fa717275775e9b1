"""Report: medians and ratios of runs, compared with the targets (`TARGETS`)."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bench.measured import Run
from bench.scenarios import CONNECTIONS, LOADS, OURS, SERVERS, TITLES, Entry, LoadName

Metric = Literal["rate", "p50_ms", "p99_ms"]
Verdict = Literal["ok", "short", "not measured"]


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of a number measured several times."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.most)})"


@dataclass
class Findings:
    """All measurements of a benchmark so far."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    ready_after_seconds: list[float] = field(default_factory=list)
    buffers: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    # Contestants that this machine cannot run, with the reason.
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, entries: Sequence[Entry], runs: Mapping[str, list[Run]]) -> None:
        """Add the runs of a group.

        An entry that several groups share keeps the runs of the first group.
        """
        for entry in entries:
            if entry.key not in self.runs:
                self.entries[entry.key] = entry
                self.runs[entry.key] = runs[entry.key]

    def has_only_small_data(self) -> bool:
        return all(entry.size == "S" for entry in self.entries.values())

    def values(self, entry: Entry, metric: Metric) -> list[float]:
        """Return the metric of each run, or nothing if a run failed.

        Use small data if there are no others.
        """
        if self.has_only_small_data():
            entry = replace(entry, size="S")
        runs = self.runs.get(entry.key, [])
        values = [getattr(run, metric) for run in runs if run.problem is None]
        return [value for value in values if value is not None] if len(values) == len(runs) else []


@dataclass(frozen=True)
class Target:
    """A target: a ratio or figure, and its bound."""

    what: str
    measured: Callable[[Findings], Spread | None]
    bound: float
    is_least: bool

    def verdict(self, findings: Findings) -> tuple[Spread | None, Verdict]:
        """Return the measurement and whether it meets the bound."""
        measured = self.measured(findings)
        if measured is None:
            return None, "not measured"
        is_kept = measured.median >= self.bound if self.is_least else measured.median <= self.bound
        return measured, "ok" if is_kept else "short"


def spread(values: Sequence[float]) -> Spread | None:
    """Return median, minimum and maximum, or None without values."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def ratio(numerator: Entry, denominator: Entry, metric: Metric = "rate") -> Callable[[Findings], Spread | None]:
    """Compute the ratio per round, because a disturbance affects both entries of a round."""

    def measured(findings: Findings) -> Spread | None:
        above, below = findings.values(numerator, metric), findings.values(denominator, metric)
        return spread([a / b for a, b in zip(above, below, strict=False) if b])

    return measured


def rate(entry: Entry) -> Callable[[Findings], Spread | None]:
    """Return the requests per second."""
    return lambda findings: spread(findings.values(entry, "rate"))


def growth(load: LoadName) -> Callable[[Findings], Spread | None]:
    """Compute how much slower the large data set is."""
    both = ratio(Entry(load, size="S"), Entry(load, size="L"))
    return lambda findings: None if findings.has_only_small_data() else both(findings)


def buffer_growth(load: str, kind: str) -> Callable[[Findings], Spread | None]:
    """Compute the ratio of blocks touched in the large and the small data set."""

    def measured(findings: Findings) -> Spread | None:
        if not {"S", "L"} <= findings.buffers.keys():
            return None
        small, large = (findings.buffers[size][load][kind] for size in ("S", "L"))
        return spread([large / small] if small else [])

    return measured


def largest_worker(findings: Findings) -> Spread | None:
    """Return the megabytes of this application's largest worker after each run."""
    return spread(
        [
            run.worker_megabytes
            for key, runs in findings.runs.items()
            for run in runs
            if findings.entries[key].contestant == OURS and run.worker_megabytes is not None
        ]
    )


PAGE, VOTE, HOT_VOTE = Entry("page"), Entry("vote"), Entry("hot_vote")
DISTINCT, BROWSE, HOME = Entry("distinct"), Entry("browse"), Entry("home")
ALONE = Entry("page", connections=1)
CALM, LOGINS = Entry("page_calm", connections=16), Entry("page_during_logins", connections=16)
GROWING: tuple[LoadName, ...] = ("page", "post", "vote", "deep")

TARGETS = [
    Target("distinct pages / raw asyncpg", ratio(DISTINCT, Entry("distinct", "asyncpg_raw")), 2, is_least=True),
    Target("distinct pages / Go + pgx", ratio(DISTINCT, Entry("distinct", "go_pgx")), 1, is_least=True),
    Target("distinct pages / Fastify", ratio(DISTINCT, Entry("distinct", "fastify_pg")), 1, is_least=True),
    Target("home pages a second", rate(HOME), 2_000, is_least=True),
    Target("home pages / raw asyncpg", ratio(HOME, Entry("home", "asyncpg_raw")), 1.5, is_least=True),
    Target("pages of tags / raw asyncpg", ratio(Entry("tag"), Entry("tag", "asyncpg_raw")), 2, is_least=True),
    Target("pages of tags / Go + pgx", ratio(Entry("tag"), Entry("tag", "go_pgx")), 1, is_least=True),
    Target("largest threads / small ones", ratio(Entry("thread-large"), Entry("thread")), 0.67, is_least=True),
    Target("browsing / raw asyncpg", ratio(BROWSE, Entry("browse", "asyncpg_raw")), 2, is_least=True),
    Target("browsing / Go + pgx", ratio(BROWSE, Entry("browse", "go_pgx")), 1.3, is_least=True),
    Target("page / tutorial", ratio(PAGE, Entry("page", "tutorial")), 40, is_least=True),
    Target("page / sync ORM", ratio(PAGE, Entry("page", "orm_sync")), 10, is_least=True),
    Target("page / raw asyncpg", ratio(PAGE, Entry("page", "asyncpg_raw")), 4, is_least=True),
    Target("page / Go + pgx", ratio(PAGE, Entry("page", "go_pgx")), 2.5, is_least=True),
    Target("page / Fastify", ratio(PAGE, Entry("page", "fastify_pg")), 2.5, is_least=True),
    Target("page / constant body", ratio(PAGE, Entry("page", "constant")), 0.5, is_least=True),
    Target("vote / tutorial", ratio(VOTE, Entry("vote", "tutorial")), 10, is_least=True),
    Target("vote / raw asyncpg", ratio(VOTE, Entry("vote", "asyncpg_raw")), 2, is_least=True),
    Target("vote / Go + pgx", ratio(VOTE, Entry("vote", "go_pgx")), 1.4, is_least=True),
    Target("vote / pgbench simple", ratio(VOTE, Entry("vote", "pgbench_simple")), 1, is_least=True),
    Target("votes on comments / votes on posts", ratio(Entry("comment_vote"), VOTE), 0.9, is_least=True),
    Target("votes on one post / spread votes", ratio(HOT_VOTE, VOTE), 0.9, is_least=True),
    Target(
        "votes on one post / pgbench prepared", ratio(HOT_VOTE, Entry("hot_vote", "pgbench_prepared")), 2, is_least=True
    ),
    Target("votes on one post / Go + pgx", ratio(HOT_VOTE, Entry("hot_vote", "go_pgx")), 4, is_least=True),
    *(Target(f"growth, throughput: {load}", growth(load), 1.2, is_least=False) for load in GROWING),
    *(
        Target(f"growth, buffers in EXPLAIN: {load}", buffer_growth(load, "explain"), 1.2, is_least=False)
        for load in GROWING
    ),
    Target("growth, buffers with triggers: vote", buffer_growth("vote", "tables"), 1.2, is_least=False),
    Target(
        "one connection, p50 / raw asyncpg",
        ratio(ALONE, Entry("page", "asyncpg_raw", connections=1), "p50_ms"),
        1.2,
        is_least=False,
    ),
    Target("page p99 during logins / calm", ratio(LOGINS, CALM, "p99_ms"), 3, is_least=False),
    Target("megabytes of a worker", largest_worker, 120, is_least=False),
    Target("seconds until ready", lambda findings: spread(findings.ready_after_seconds), 2, is_least=False),
]


def show_measurements(findings: Findings, console: Console) -> None:
    """Print every entry with its rate, latency and cost."""
    table = Table(
        "load", "contestant", "size", "conn.", "requests/s", "p50 ms", "p99 ms", "CPU ms: server", "postgres", "MB"
    )
    for key, entry in findings.entries.items():
        runs = findings.runs[key]
        problems = [run.problem for run in runs if run.problem]
        table.add_row(
            LOADS[entry.load],
            TITLES[entry.contestant],
            entry.size,
            str(entry.connections),
            f"FAILED: {problems[0]}" if problems else str(spread([run.rate for run in runs])),
            *(
                _median(runs, name)
                for name in ("p50_ms", "p99_ms", "server_cpu_ms", "postgres_cpu_ms", "worker_megabytes")
            ),
        )
    console.print(table)


def compared(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[LoadName, dict[str, tuple[float, float]]]]:
    """Return the rate of each contestant for each load, and this application's rate divided by it.

    `runs` are those of a stored result, on the large data set if there are any. Ratios are medians over the rounds. The
    load in which a peer is fastest compared with this application comes first.
    """
    size = "L" if any(key.split()[1] == "L" for key in runs) else "S"
    rows: list[tuple[LoadName, dict[str, tuple[float, float]]]] = []
    for load in LOADS:
        rates = {
            name: [run["rate"] for run in found]
            for name in SERVERS
            if (found := runs.get(f"{load} {size} {CONNECTIONS} {name}"))
            and not any(run.get("problem") for run in found)
        }
        if OURS in rates and len(rates) > 1:
            rows.append(
                (
                    load,
                    {
                        name: (
                            statistics.median(mine),
                            statistics.median(a / b for a, b in zip(rates[OURS], mine, strict=False) if b),
                        )
                        for name, mine in rates.items()
                    },
                )
            )
    return sorted(rows, key=lambda row: _lead(row[1]))


def _lead(row: Mapping[str, tuple[float, float]]) -> float:
    """Return how many times faster this application is than the fastest peer; `constant` is a ceiling, not a peer."""
    return min((times for name, (_, times) in row.items() if name not in {OURS, "constant"}), default=float("inf"))


def show_comparison(findings: Findings, console: Console) -> None:
    """Print the rates of all contestants by load, the least flattering load first."""
    rows = compared({key: [run.to_json() for run in runs] for key, runs in findings.runs.items()})
    if not rows:
        return
    names = [name for name in SERVERS if any(name in row for _, row in rows)]
    table = Table("requests/s (this application / peer)", *(TITLES[name] for name in names))
    for load, row in rows:
        table.add_row(LOADS[load], *(_cell(row.get(name), is_ours=name == OURS) for name in names))
    console.print(table)


def _cell(measured: tuple[float, float] | None, *, is_ours: bool) -> str:
    if measured is None:
        return "-"
    rate, times = measured
    return f"{rate:,.0f}" if is_ours else f"{rate:,.0f} ({_short(times)})"


def show_targets(findings: Findings, console: Console) -> None:
    """Print the table of targets."""
    table = Table("what", "bound", "median (least-most)", "")
    for target in TARGETS:
        measured, verdict = target.verdict(findings)
        sign = "≥" if target.is_least else "≤"
        colour = {"ok": "green", "short": "red", "not measured": "dim"}[verdict]
        table.add_row(
            target.what, f"{sign} {target.bound:g}", "-" if measured is None else str(measured), f"[{colour}]{verdict}"
        )
    console.print(table)


def to_json(findings: Findings) -> dict[str, Any]:
    """Return the results as stored in bench/results."""
    return {
        "targets": [
            {
                "what": target.what,
                "at_least" if target.is_least else "at_most": target.bound,
                "measured": None
                if measured is None
                else [round(n, 3) for n in (measured.median, measured.least, measured.most)],
                "verdict": verdict,
            }
            for target in TARGETS
            for measured, verdict in [target.verdict(findings)]
        ],
        "skipped": findings.skipped,
        "runs": {key: [run.to_json() for run in runs] for key, runs in findings.runs.items()},
        "ready_after_seconds": [round(seconds, 2) for seconds in findings.ready_after_seconds],
        "buffers": findings.buffers,
    }


def disturbed(findings: Findings, *, cores: float = 0.2) -> list[str]:
    """Return the entries with a run in which other programs used more than `cores`."""
    return [key for key, runs in findings.runs.items() if any(run.others_cores > cores for run in runs)]


def _median(runs: Sequence[Run], name: str) -> str:
    values = [getattr(run, name) for run in runs if getattr(run, name) is not None]
    return _short(statistics.median(values)) if values else "-"


def _short(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
