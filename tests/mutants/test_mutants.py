"""The list of mutants fits the code and the tests of today; and running it tells what noticed from what did not."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.__main__ import RECORD
from tests.mutants.mutant import PROVED, ROOT, Mutant, function_of, load

MUTANTS = load()
NOTICED = "test_config.py::test_the_url_goes_before_the_parts"
UNNOTICED = "test_config.py::test_origins_are_split_and_trimmed"


def functions_in(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield f"{path.relative_to(ROOT)}::{node.name}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.without)
def test_mutant_changes_what_stands_in_its_file_once(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()

    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.file.endswith(".py")
    ast.parse(text.replace(mutant.old, mutant.new))


def test_mutants_name_tests_that_there_are() -> None:
    named = {function_of(name) for mutant in MUTANTS for name in mutant.tests}
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name in functions_in(path)}

    assert named - there == set()
    assert [one for one, count in Counter((mutant.file, mutant.new, mutant.old) for mutant in MUTANTS).items()
            if count > 1] == []  # fmt: skip


def test_every_test_that_a_promise_rests_on_is_named_by_a_mutant() -> None:
    named = {function_of(name) for mutant in MUTANTS for name in mutant.tests}
    files = [path for proved in PROVED for path in ([ROOT / proved, *(ROOT / proved).rglob("*.py")])]
    resting = {name for path in files if path.suffix == ".py" for name in functions_in(path)}

    assert len(resting) > 50
    assert resting - named == set(), "say in tests/mutants/mutants.toml what they would fail without"


def test_the_page_of_what_was_seen_is_of_these_mutants() -> None:
    rows = [line.split(" | ", 2) for line in RECORD.read_text().splitlines() if line.startswith("| ")][1:]
    pairs = [(mutant.without, function_of(name)) for mutant in MUTANTS for name in mutant.fails]

    assert [(what[2:], test.strip("`")) for what, test, _ in rows] == list(dict.fromkeys(pairs))
    assert [row for row in rows if row[2].startswith("not yet")] == [], "run: make mutants ARGS='--record word'"


def test_running_tells_what_noticed_from_what_did_not(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(f"""
        [[mutant]]
        without = "preferring the URL to its parts"
        file = "app/config.py"
        old = "if self.database_url is not None:"
        new = "if self.database_url is not None and self.database_hostname is None:"
        fails = ["{NOTICED}", "{UNNOTICED}"]
        """)

    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--from", path], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    assert f"    tests/{NOTICED}: " in done.stdout
    assert f"    SURVIVED tests/{UNNOTICED}" in done.stdout
    assert "1 defences taken out, 2 tests asked, 1 times one did not notice" in done.stdout
    assert "if self.database_url is not None:" in (ROOT / "app/config.py").read_text()
