"""`python -m bench`: benchmark of this application and its peers."""

import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.dev.postgres import LocalPostgresError
from bench import buffers, contestants, data, load, plot, report, rounds, scenarios, scouting
from bench.data import Dataset
from bench.environment import ROOT, BenchError, prepare
from bench.measured import Run
from bench.scenarios import SizeName

RESULTS = ROOT / "bench" / "results"
STARTS = 3
QUICK_SECONDS = 2.0
# Extra time of a run: starting its load generator, and cleaning up after votes.
OVERHEAD_SECONDS = 1.0

# Tables need this width, also when the output is a file.
console = Console(width=max(140, Console().width))


def bench(
    only: Annotated[
        str, typer.Option(help=f"Groups, comma-separated: {', '.join([*scenarios.GROUPS, *scenarios.OTHERS])}.")
    ] = "",
    contestants_: Annotated[
        str, typer.Option("--contestants", help=f"Comma-separated: {', '.join(scenarios.TITLES)}.")
    ] = "",
    sizes_: Annotated[
        str, typer.Option("--sizes", help=f"Data sets, comma-separated: {', '.join(scenarios.SIZES)}. Default: all.")
    ] = "",
    rounds_: Annotated[int, typer.Option("--rounds", min=1, help="Number of runs per contestant and load.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Seconds per run.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of short runs on the small data set, to check that it works.")
    ] = False,
    remake: Annotated[bool, typer.Option("--remake", help="Recreate the data sets.")] = False,
) -> None:
    """Benchmark this application and its peers on the same data, and compare with the targets.

    The data sets are created once (a million posts take minutes) and kept in .local/bench-postgres. Results go to
    bench/results. Run nothing else on the machine meanwhile.
    """
    groups = _chosen(only, (*scenarios.GROUPS, *scenarios.OTHERS), "--only") or [*scenarios.GROUPS, *scenarios.OTHERS]
    names = _chosen(contestants_, tuple(scenarios.TITLES), "--contestants")
    chosen_sizes = _chosen(sizes_, tuple(scenarios.SIZES), "--sizes") or [*scenarios.SIZES][: 1 if quick else None]
    sizes: tuple[SizeName, ...] = tuple(size for size in scenarios.SIZES if size in chosen_sizes)
    if quick:
        rounds_, seconds = 1, min(seconds, QUICK_SECONDS)
    load.require_programs()
    prepare()
    began_at = time.monotonic()
    findings = report.Findings()
    plan, findings.skipped = _plan(groups, names, sizes)
    with data.server() as url:
        if remake:
            data.remove_datasets(url)
        datasets = {name: data.open_dataset(url, name) for name in sizes}
        scouted = _scout(datasets, plan)
        facts = _circumstances(datasets, scouted) | {"rounds": rounds_, "seconds": seconds}
        is_whole = False
        try:
            _measure(groups, plan, datasets, scouted, findings, rounds_count=rounds_, seconds=seconds)
            is_whole = not (quick or only or contestants_ or sizes_)
        finally:  # Keep the measurements even after an error or Ctrl-C.
            report.show_measurements(findings, console)
            report.show_comparison(findings, console)
            report.show_targets(findings, console)
            for name, reason in findings.skipped.items():
                console.print(f"[yellow]Not measured, {scenarios.TITLES[name]}: {reason}")
            if entries := report.disturbed(findings):
                console.print(f"[yellow]Other programs used this machine, take with care: {', '.join(entries)}")
            facts["took_seconds"] = round(time.monotonic() - began_at)
            _write(findings, facts, is_whole=is_whole)


def _chosen(words: str, known: tuple[str, ...], option: str) -> list[str]:
    chosen = [word.strip() for word in words.split(",") if word.strip()]
    for word in chosen:
        if word not in known:
            raise BenchError(f"{option}: unknown {word}; known are {', '.join(known)}")
    return chosen


def _plan(
    groups: list[str], names: list[str], sizes: tuple[SizeName, ...]
) -> tuple[dict[str, list[scenarios.Entry]], dict[str, str]]:
    """Return the entries of each group, and the reason for each contestant that this machine cannot run."""
    wanted = {
        group: scenarios.chosen(group, contestants=frozenset(names) or None, sizes=sizes)
        for group in groups
        if group in scenarios.GROUPS
    }
    skipped = {}
    for name in dict.fromkeys(entry.contestant for entries in wanted.values() for entry in entries):
        try:
            contestants.install(name)
        except BenchError as error:
            skipped[name] = str(error)
    plan = {group: [entry for entry in entries if entry.contestant not in skipped] for group, entries in wanted.items()}
    return plan, skipped


def _scout(
    datasets: dict[SizeName, Dataset], plan: dict[str, list[scenarios.Entry]]
) -> dict[SizeName, scouting.Scouted]:
    scouted = {}
    for name, dataset in datasets.items():
        loads = {entry.load for entries in plan.values() for entry in entries if entry.size == name}
        with contestants.running(scenarios.OURS, dataset) as server:
            scouted[name] = scouting.scout(server, dataset, loads)
    return scouted


def _measure(
    groups: list[str],
    plan: dict[str, list[scenarios.Entry]],
    datasets: dict[SizeName, Dataset],
    scouted: dict[SizeName, scouting.Scouted],
    findings: report.Findings,
    *,
    rounds_count: int,
    seconds: float,
) -> None:
    """Run the groups and add the results to `findings`."""
    runs = sum(map(len, plan.values()))
    expected = runs * (rounds_count * (seconds + OVERHEAD_SECONDS) + 2 + OVERHEAD_SECONDS)
    console.print(f"{runs} entries, {rounds_count} rounds of {seconds:g} s: about {expected / 60:.0f} minutes")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for group, entries in plan.items():
            task = progress.add_task(f"{group}: warming up", total=len(entries) * rounds_count)

            def note(entry: scenarios.Entry, number: int, run: Run, *, task: Any = task, group: str = group) -> None:
                outcome = f"FAILED: {run.problem}" if run.problem else f"{run.rate:,.0f}/s"
                progress.update(task, advance=1, description=f"{group} {number + 1}: {entry.key} {outcome}")

            found = rounds.play(entries, datasets, scouted, rounds=rounds_count, seconds=seconds, report=note)
            findings.add(entries, found)
            progress.update(task, description=group)
    if "start" in groups:
        largest = datasets[list(datasets)[-1]]
        for _ in range(STARTS):
            with contestants.running(scenarios.OURS, largest) as server:
                findings.ready_after_seconds.append(server.ready_after_seconds)
    if "buffers" in groups:
        for name, dataset in datasets.items():
            findings.buffers[name] = buffers.touched(dataset, scouted[name])


def _circumstances(datasets: dict[SizeName, Dataset], scouted: dict[SizeName, scouting.Scouted]) -> dict[str, Any]:
    """Describe machine, versions, settings and data, without which the figures mean little."""
    some = next(iter(datasets.values()))
    ((postgres,),) = some.rows("SHOW server_version")
    settings = dict(
        some.rows(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)",
            ([*data.server_options(), "fsync", "synchronous_commit", "full_page_writes", "autovacuum"],),
        )
    )
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": psutil.cpu_count(),
            "memory_gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "postgresql": postgres,
            **{name: version(name) for name in ("fastapi", "uvicorn", "sqlalchemy", "psycopg2-binary", "asyncpg")},
            **contestants.versions(),
        },
        "postgresql_settings": settings,
        "data": {
            name: {
                "users": scenarios.SIZES[name].users,
                "posts": scenarios.SIZES[name].posts,
                "votes": scenarios.SIZES[name].votes,
                "deep_page": scouted[name].deep_page_number,
                "page_bytes": len(contestants.constant_body(datasets[name]).read_bytes()),
                "megabytes": round(_database_bytes(datasets[name]) / 1e6),
            }
            for name in datasets
        },
    }


def _database_bytes(dataset: Dataset) -> int:
    ((size,),) = dataset.rows("SELECT pg_database_size(current_database())")
    return int(size)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _write(findings: report.Findings, circumstances: dict[str, Any], *, is_whole: bool) -> None:
    commit, changed = (
        subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S607
        for words in (
            ["rev-parse", "--short", "HEAD"],
            ["status", "--porcelain", "--", "app", "alembic", "bench/peers", "bench/statements.py"],
        )
    )
    name = f"{datetime.now(UTC):%Y-%m-%d}-{commit or 'no-commit'}{'' if is_whole else '-partial'}"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = {"commit": commit, "has_uncommitted_changes": bool(changed), **circumstances, **report.to_json(findings)}
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    if any(entry.load == "page" for entry in findings.entries.values()):
        plot.draw(findings, path.with_suffix(".png"))
    console.print(f"Written to {path.relative_to(ROOT)}" + ("" if is_whole else " (partial: not for git)"))


def main() -> None:
    """Run the command line. Report errors that the user can fix in one line."""
    try:
        typer.run(bench)
    except (BenchError, LocalPostgresError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
