"""`python -m bench.table`: update the documents with the stored result.

A test compares them.
"""

import json
from pathlib import Path
from typing import Any

from bench import report
from bench.environment import ROOT
from bench.scenarios import LOADS, OURS, SERVERS, TITLES

RESULTS = ROOT / "bench" / "results"
README, BENCHMARKS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
DOCUMENTS = (README, BENCHMARKS)
BEGIN, END = "<!-- python -m bench.table -->\n", "<!-- end -->\n"


def kept() -> Path:
    """Return the stored result. Earlier results are in git's history."""
    (path,) = (path for path in RESULTS.glob("*.json") if "-partial" not in path.name)
    return path


def markdown(path: Path, *, has_targets: bool = True) -> str:
    """Format a result: the comparison with all peers, the targets with their verdicts, and the circumstances."""
    result: dict[str, Any] = json.loads(path.read_text())
    machine, versions = result["machine"], result["versions"]
    lines = [*_comparison(result), ""]
    if has_targets:
        lines += [
            "| 1 M posts, 10 M votes, 2 workers, 64 connections | target | measured: median (least–most) | |",
            "|---|---|---|---|",
            *(_row(target) for target in result["targets"]),
            "",
        ]
    lines += [f"Not measured, {TITLES[name]}: {reason}." for name, reason in result.get("skipped", {}).items()]
    lines.append(
        f"`bench/results/{path.name}`: {result['rounds']} rounds of {result['seconds']:g} s, {machine['cores']} cores"
        f" ({machine['cpu']}) for everything, Python {versions['python']}, PostgreSQL {versions['postgresql']}."
    )
    return "".join(f"{line}\n" for line in lines)


def _comparison(result: dict[str, Any]) -> list[str]:
    """Format requests per second and, in brackets, how many times the peer's rate this application has."""
    rows = report.compared(result["runs"])
    names = [name for name in SERVERS if any(name in rates for _, rates in rows)]
    lines = [
        f"| requests/s (this application / peer) | {' | '.join(TITLES[name] for name in names)} |",
        f"|---{'|--:' * len(names)}|",
    ]
    for load, rates in rows:
        cells = [
            f"{rates[name][0]:,.0f}{'' if name == OURS else f' ({rates[name][1]:.2g})'}" if name in rates else ""
            for name in names
        ]
        lines.append(f"| {LOADS[load]} | {' | '.join(cells)} |")
    return lines


def _row(target: dict[str, Any]) -> str:
    bound = f"≥ {target['at_least']:g}" if "at_least" in target else f"≤ {target['at_most']:g}"
    if target["measured"] is None:
        return f"| {target['what']} | {bound} | not measured | |"
    median, least, most = (f"{number:.3g}" for number in target["measured"])
    return f"| {target['what']} | {bound} | {median} ({least}–{most}) | {'●' if target['verdict'] == 'ok' else ''} |"


def shown_in(document: Path) -> str:
    """Return the tables of a document: the README has no targets."""
    return markdown(kept(), has_targets=document != README)


def in_place(document: str, table: str) -> str:
    """Return the document with this table between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + BEGIN + table + end + after


def main() -> None:
    for path in DOCUMENTS:
        path.write_text(in_place(path.read_text(), shown_in(path)))


if __name__ == "__main__":
    main()
