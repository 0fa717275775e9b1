"""schemathesis on the served document of a real server: every operation, as every kind of caller."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.conftest import ROOT
from tests.figures import Figure
from tests.fixtures import Server
from tests.hostile.caller import CALLERS, headers_of, leave_room

# All checks but three, which require more than the contract: that nothing beyond the schema be accepted (numbers sent
# as text are), that nothing within it be refused (a cursor is any text, and one that was not given here is refused),
# and that whatever was written can be used at once (drafts take no votes).
LEFT_OUT = "negative_data_rejection,positive_data_acceptance,ensure_resource_availability"
COMMAND = [
    str(Path(sys.executable).with_name("schemathesis")), "run", "--exclude-checks", LEFT_OUT, "--continue-on-failure",
    "--no-color", "--warnings", "off", "--seed", "1", "--checks", "all", "--request-timeout", "60",
    "--exclude-path", "/live",  # A stream that does not end. tests/live has it.
]  # fmt: skip


def run(server: Server, database: Engine, caller: str, folder: Path, *options: str) -> int:
    """Run schemathesis, and return the number of its cases."""
    leave_room(database)
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.hostile.hooks",
        "PYTHONPATH": str(ROOT),
        "HOSTILE_CALLER": caller,
        "HOSTILE_DATABASE": database.url.set(drivername="postgresql").render_as_string(hide_password=False),
    }
    headers = [option for name, value in headers_of(caller).items() for option in ("--header", f"{name}: {value}")]
    done = subprocess.run(
        [*COMMAND, *headers, *options, f"{server.url}/openapi.json"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip

    found = "; ".join(sorted(set(re.findall(r"^- (.+)$", done.stdout, re.MULTILINE))))
    assert done.returncode == 0, f"{found}\n{done.stdout[-20_000:]}{done.stderr}"
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated, done.stdout
    return int(generated[1].replace(",", ""))


def test_a_few_cases_of_every_operation_are_answered_as_declared(
    server: Server, database: Engine, tmp_path: Path
) -> None:
    few = ("--phases", "examples,fuzzing", "--max-examples", "3", "--generation-deterministic")
    cases = run(server, database, "user", tmp_path, *few)

    assert cases > 50


@pytest.mark.slow
@pytest.mark.parametrize("caller", CALLERS)
def test_all_phases_are_answered_as_declared(
    server: Server, database: Engine, tmp_path: Path, caller: str, figure: Figure
) -> None:
    cases = run(server, database, caller, tmp_path, "--max-examples", "50", "--generation-database", "none")

    figure(f"R1: schemathesis, all phases, as {caller}: {cases:,} cases, none answered 5xx or other than declared")
    assert cases > 1_000
