"""`python -m tests.mutants`: remove each defence in turn, and expect its tests to fail.

A mutant quotes the code that it changes, so rewording that code makes it stale: it is named, and not run.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import watching
from tests.mutants.mutant import LIST, ROOT, Mutant, function_of, load

# Paths of this machine do not belong in the output.
_PLACES = re.compile(rf"{re.escape(str(ROOT))}|{re.escape(tempfile.gettempdir())}/mutant-[^/]+/project")
MAX_SECONDS = 1200
MAX_REASON_CHARACTERS = 150


@dataclass(frozen=True)
class Outcome:
    """Why each test failed or was skipped, and those that ran and did not fail."""

    failures: dict[str, str]
    skipped: dict[str, str]
    survived: Sequence[str]
    seconds: float
    output: str


def copy(root: Path) -> None:
    """The project as it stands here, without what git ignores.

    Needs no git, because a download has none.
    """
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", *ignored))


def run(mutant: Mutant) -> Outcome:
    """Run its tests in a copy of the project with the mutant in it."""
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as folder:
        root, report = Path(folder, "project"), Path(folder, "report.json")
        copy(root)
        mutant.apply(root)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", watching.__name__]
        with subprocess.Popen(
            [*command, *mutant.tests], cwd=root, env=os.environ | {watching.REPORT: str(report)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                output, _ = process.communicate(timeout=MAX_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output = f"no end after {MAX_SECONDS} s"
        found = json.loads(report.read_text()) if report.exists() else {"failures": {}, "skipped": {}}
    failures, skipped = found["failures"], found["skipped"]
    survived = [name for name in mutant.tests if function_of(name) not in failures | skipped]
    return Outcome(failures, skipped, survived, time.monotonic() - began_at, output)


def reason(words: str) -> str:
    """Return the beginning of the message in one line."""
    line = " ".join(_PLACES.sub(".", words).split()).partition(" + where ")[0]
    return line if len(line) <= MAX_REASON_CHARACTERS else line[: MAX_REASON_CHARACTERS - 1] + "…"


def say(*lines: str) -> None:
    """At once, also where a file takes it."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    """Run the selected mutants.

    Returns 1 if a test survived or a mutant is stale, 2 if there is no such mutant.

    A skipped test proves nothing, but it is no failure, because not every machine has every program that tests need.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition(": ")[2])
    parser.add_argument("words", nargs="*", help="run only mutants whose description or tests have one of these words")
    parser.add_argument(
        "--jobs", type=int, default=1, help="mutants to run at once (default: 1; some tests measure times)"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--from", dest="path", type=Path, default=LIST, help="another list of mutants")
    options = parser.parse_args()
    mutants = [
        mutant
        for mutant in load(options.path)
        if not options.words or any(word in f"{mutant.without} {mutant.fails}" for word in options.words)
    ]
    if not mutants:
        parser.error("no mutant has these words")
    if options.list:
        say(*(mutant.without for mutant in mutants))
        return 0
    stale = {mutant: why for mutant in mutants if (why := mutant.staleness())}
    say(*(f"NO LONGER APPLIES: {mutant.without} ({why})" for mutant, why in stale.items()))
    mutants = [mutant for mutant in mutants if mutant not in stale]
    survivor_count = skipped_count = 0
    with ThreadPoolExecutor(max_workers=options.jobs) as threads:
        for number, (mutant, outcome) in enumerate(zip(mutants, threads.map(run, mutants), strict=True), 1):
            say(
                f"[{number}/{len(mutants)}] without {mutant.without} ({outcome.seconds:.0f} s)",
                *(f"    {name}: {reason(words)}" for name, words in sorted(outcome.failures.items())),
                *(f"    SKIPPED {name}: {reason(words)}" for name, words in sorted(outcome.skipped.items())),
                *(f"    SURVIVED {name}" for name in outcome.survived),
                *([outcome.output[-3000:]] if outcome.survived else []),
            )
            survivor_count += len(outcome.survived)
            skipped_count += len(outcome.skipped)
    test_count = len({name for mutant in mutants for name in mutant.tests})
    summary = f"{len(mutants)} mutants run, {test_count} tests named"
    say(f"{summary}, {survivor_count} survived, {skipped_count} skipped; {len(stale)} no longer apply")
    return 1 if survivor_count or stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:  # The code has changed since the mutant was written.
        sys.exit(f"error: {error}")
