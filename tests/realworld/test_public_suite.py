"""The public test suite of RealWorld, run by its own runner against a server.

`REALWORLD_SUITE` is the folder `specs/api/bruno` of a checkout of the repository realworld-apps/realworld, which this
project does not copy. Without it, or without Node 20 and the npm registry, the test is skipped.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_generated_clients import QUIET, install
from tests.fixtures import Server
from tests.programs import find_program

RUNNER = "@usebruno/cli@4.1.0"
SETTINGS = {
    "REALWORLD_ENABLED": "true", "PUBLIC_READS": "true", "RATE_LIMITS_ENABLED": "false",
    "PASSWORD_BLOCKLIST_ENABLED": "false",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.needs("node", "npm")
@pytest.mark.skipif("REALWORLD_SUITE" not in os.environ, reason="REALWORLD_SUITE names no folder")
def test_every_check_of_the_public_suite_passes(start_server: Callable[..., Server], tmp_path: Path) -> None:
    suite = Path(os.environ["REALWORLD_SUITE"])
    install(find_program("npm"), "install", "--no-audit", "--no-fund", RUNNER, cwd=tmp_path, what="npm")
    server = start_server(**SETTINGS)
    counts: dict[str, int] = {}
    failures = []

    for folder in sorted(path.name for path in suite.iterdir() if path.is_dir() and path.name != "environments"):
        for result in _results(suite, folder, server.url, tmp_path):
            checks = [*result["assertionResults"], *result["testResults"]]
            passed = [check for check in checks if check["status"] == "pass"]
            counts["requests"] = counts.get("requests", 0) + 1
            counts["checks"] = counts.get("checks", 0) + len(passed)
            if result.get("error") or len(passed) < len(checks):
                failures.append((folder, result["test"]["filename"], result.get("error"), result["response"], checks))

    assert failures == []
    assert counts["requests"] > 100, counts
    assert counts["checks"] >= counts["requests"]


def _results(suite: Path, folder: str, url: str, tmp_path: Path) -> list[dict[str, Any]]:
    """Run a folder of the suite; return what became of each request."""
    report = tmp_path / f"{folder}.json"
    command = [
        tmp_path / "node_modules" / ".bin" / "bru", "run", folder,
        *("--env", "local", "--env-var", f"host={url}", "--reporter-json", report),
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=suite, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | QUIET,
    )  # fmt: skip
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return [result for run in json.loads(report.read_text()) for result in run["results"]]
