"""The public tests of the RealWorld API (`suite/README.md`), run by their own runner against a server.

They need Node 20 and npm. The runner is installed into a temporary folder. Without its registry, the test is skipped.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_generated_clients import QUIET, install
from tests.fixtures import Server
from tests.programs import find_program

RUNNER = "@usebruno/cli@4.1.0"
SUITE = Path(__file__).resolve().parent / "suite"
# The suite signs up with common passwords, and more often than one address may.
SETTINGS = {
    "REALWORLD_ENABLED": "true", "PUBLIC_READS": "true", "RATE_LIMITS_ENABLED": "false",
    "PASSWORD_BLOCKLIST_ENABLED": "false",
}  # fmt: skip
# Of each request: its assertions, and the results of the scripts before and after it, which have only failures.
RESULTS = ("assertionResults", "testResults", "preRequestTestResults", "postResponseTestResults")


@pytest.mark.slow
@pytest.mark.needs("node", "npm")
def test_every_check_of_the_public_suite_passes(start_server: Callable[..., Server], tmp_path: Path) -> None:
    npm = find_program("npm")
    # Without it, npm would install into a folder above that has one.
    (tmp_path / "package.json").write_text("{}")
    install(npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", RUNNER, cwd=tmp_path, what="npm")
    server = start_server(**SETTINGS)

    results = _results(server.url, tmp_path)

    failures = [
        (result["test"]["filename"], result["error"], result["response"], failed)
        for result in results
        if (failed := [each for name in RESULTS for each in result[name] if each["status"] != "pass"])
        or result["error"]
    ]
    assert failures == []
    # The runner leaves out files that it cannot read.
    requests = [path.read_text() for path in SUITE.glob("*/*.bru") if path.parent.name != "environments"]
    assert len(results) == len(requests) == 154
    assert sum(len(re.findall(r"^  res\.|\bexpect\(", request, re.MULTILINE)) for request in requests) == 538


def _results(url: str, tmp_path: Path) -> list[dict[str, Any]]:
    """Run the suite; return what became of each request."""
    report = tmp_path / "report.json"
    folders = sorted(path.name for path in SUITE.iterdir() if path.is_dir() and path.name != "environments")
    command = [
        tmp_path / "node_modules" / ".bin" / "bru", "run", *folders, "--sandbox", "developer",
        *("--env", "local", "--env-var", f"host={url}", "--reporter-json", report),
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=SUITE, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | QUIET,
    )  # fmt: skip
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return [result for run in json.loads(report.read_text()) for result in run["results"]]
