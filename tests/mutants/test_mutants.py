"""Running mutants distinguishes killed, surviving and skipped tests, and reports mutants that no longer apply."""

import os
import subprocess
import sys
from pathlib import Path

from tests.mutants.mutant import ROOT
from tests.programs import find_program

NOTICED = "test_config.py::test_the_url_takes_precedence_over_the_parts"
UNNOTICED = "test_config.py::test_origins_are_split_and_trimmed"
NEEDS_SQLMAP = "hostile/test_injection.py::test_sqlmap_finds_no_way_in"
GONE = "test_config.py::test_that_was_renamed"


def run(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--from", path], cwd=ROOT, env=os.environ | variables,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_running_tells_tests_that_failed_from_those_that_did_not(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(f"""
        [[mutant]]
        without = "preferring the URL to its parts"
        file = "app/config.py"
        old = "if self.database_url is not None:"
        new = "if self.database_url is not None and self.database_hostname is None:"
        fails = ["{NOTICED}", "{UNNOTICED}"]
        """)

    done = run(path)

    assert done.returncode == 1, done.stdout + done.stderr
    assert f"    tests/{NOTICED}: " in done.stdout
    assert f"    SURVIVED tests/{UNNOTICED}" in done.stdout
    assert "1 mutants run, 2 tests named, 1 survived, 0 skipped; 0 no longer apply" in done.stdout
    assert "if self.database_url is not None:" in (ROOT / "app/config.py").read_text()


def test_a_test_that_is_skipped_neither_failed_nor_survived(tmp_path: Path) -> None:
    (tmp_path / "git").symlink_to(find_program("git"))  # The only program in PATH, so there is no sqlmap.
    path = tmp_path / "skipped.toml"
    path.write_text(f"""
        [[mutant]]
        without = "preferring the URL to its parts"
        file = "app/config.py"
        old = "if self.database_url is not None:"
        new = "if self.database_url is not None and self.database_hostname is None:"
        fails = ["{NOTICED}", "{NEEDS_SQLMAP}[search]"]
        """)

    done = run(path, PATH=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"    tests/{NOTICED}: " in done.stdout
    assert f"    SKIPPED tests/{NEEDS_SQLMAP}: Skipped: sqlmap is not installed" in done.stdout
    assert "1 mutants run, 2 tests named, 0 survived, 1 skipped; 0 no longer apply" in done.stdout


def test_a_mutant_that_no_longer_applies_is_named_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "stale.toml"
    path.write_text(f"""
        [[mutant]]
        without = "a line that was reworded"
        file = "app/config.py"
        old = "this line is not there"
        new = "pass"
        fails = ["{NOTICED}"]

        [[mutant]]
        without = "a defence whose test was renamed"
        file = "app/config.py"
        old = "if self.database_url is not None:"
        new = "if False:"
        fails = ["{GONE}"]
        """)

    done = run(path)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "NO LONGER APPLIES: a line that was reworded (app/config.py has the text 0 times)" in done.stdout
    assert f"NO LONGER APPLIES: a defence whose test was renamed (no test tests/{GONE})" in done.stdout
    assert "0 mutants run, 0 tests named, 0 survived, 0 skipped; 2 no longer apply" in done.stdout
