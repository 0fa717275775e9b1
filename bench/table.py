"""`python -m bench.table`: update the documents with the stored result. A test compares them."""

import json
from pathlib import Path
from typing import Any

from bench.environment import ROOT

RESULTS = ROOT / "bench" / "results"
# For each document, how the names of its targets begin. Targets that were missed are in all documents.
DOCUMENTS = {
    ROOT / "README.md": ("page /", "vote /", "votes on one post /", "megabytes", "seconds"),
    ROOT / "docs" / "benchmarks.md": ("",),
}
BEGIN, END = "<!-- python -m bench.table -->\n", "<!-- end -->\n"


def kept() -> Path:
    """Return the stored result. Earlier results are in git's history."""
    (path,) = (path for path in RESULTS.glob("*.json") if "-partial" not in path.name)
    return path


def markdown(path: Path, beginnings: tuple[str, ...]) -> str:
    """Format the targets of a result that begin so or were missed, with their verdicts and circumstances."""
    result: dict[str, Any] = json.loads(path.read_text())
    machine, versions = result["machine"], result["versions"]
    lines = [
        "| 1 M posts, 10 M votes, 2 workers, 64 connections | target | measured: median (least–most) | |",
        "|---|---|---|---|",
        *(
            _row(target)
            for target in result["targets"]
            if target["what"].startswith(beginnings) or target["verdict"] != "ok"
        ),
        "",
        f"`bench/results/{path.name}`: {result['rounds']} rounds of {result['seconds']:g} s, {machine['cores']} cores"
        f" ({machine['cpu']}) for everything, Python {versions['python']}, PostgreSQL {versions['postgresql']}.",
    ]
    return "".join(f"{line}\n" for line in lines)


def _row(target: dict[str, Any]) -> str:
    bound = f"≥ {target['at_least']:g}" if "at_least" in target else f"≤ {target['at_most']:g}"
    if target["measured"] is None:
        return f"| {target['what']} | {bound} | not measured | |"
    median, least, most = (f"{number:.3g}" for number in target["measured"])
    return f"| {target['what']} | {bound} | {median} ({least}–{most}) | {'●' if target['verdict'] == 'ok' else ''} |"


def in_place(document: str, table: str) -> str:
    """Return the document with this table between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + BEGIN + table + end + after


def main() -> None:
    for path, beginnings in DOCUMENTS.items():
        path.write_text(in_place(path.read_text(), markdown(kept(), beginnings)))


if __name__ == "__main__":
    main()
