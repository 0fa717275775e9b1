"""The suite in a download: no `.git`, and a `.env` of the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ENV_FILE_VARIABLE, Settings
from tests.mutants.__main__ import copy

# Tests in this process, and tests that start a server and Alembic.
SAMPLE = [
    "tests/contract/test_meta.py",
    "tests/test_config.py::test_a_program_reports_it_in_one_line_and_does_not_start[bad URL-command1]",
    "tests/cli/test_commands.py::test_signal_ends_the_server_without_a_traceback[15-0-1]",
    "tests/migrations/test_running.py::test_two_upgrades_at_once_both_succeed",
]


@pytest.mark.slow
def test_settings_of_the_checkout_reach_neither_tests_nor_the_programs_that_they_start(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout, größer"
    copy(checkout)
    (checkout / ".env").write_text("".join(f"{name.upper()}=wrong\n" for name in Settings.model_fields))
    left_out = {ENV_FILE_VARIABLE, "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SAMPLE], cwd=checkout,
        env=environment | {"TEST_DATABASE_URL": os.environ["DATABASE_URL"], "PORT": "wrong", "port": "wrong"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
