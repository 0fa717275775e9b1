"""Tests that need a program are skipped without it, or fail where CI has to install it."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.programs import KNOWN, find_program, missing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "sbin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("REQUIRE_PROGRAMS", raising=False)
    return tmp_path


def install(path: Path) -> str:
    path.write_text("")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("folder")
def test_missing_program_skips_the_test_with_a_line_that_names_it() -> None:
    with pytest.raises(pytest.skip.Exception) as skipped:
        find_program("curl")

    assert str(skipped.value) == "curl is not installed"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("required", ["curl", "bash curl git"])
def test_missing_program_that_is_required_fails_the_test(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("REQUIRE_PROGRAMS", required)

    with pytest.raises(pytest.fail.Exception) as failed:
        find_program("curl")
    with pytest.raises(pytest.skip.Exception):
        find_program("nginx")
    with pytest.raises(pytest.skip.Exception):
        missing("pg_dump")

    assert str(failed.value) == "curl is not installed, and REQUIRE_PROGRAMS names it"


def test_programs_are_found_in_their_order_and_in_the_folder_of_daemons(folder: Path) -> None:
    chromium, nginx = install(folder / "bin" / "google-chrome"), install(folder / "sbin" / "nginx")

    assert find_program("chromium", "google-chrome") == chromium
    assert find_program("nginx") == nginx


@pytest.mark.parametrize("path", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_requires_programs_that_tests_know(path: str) -> None:
    lists = re.findall(r"REQUIRE_PROGRAMS(?:=\"|: )([^\"#\n]+)", (ROOT / path).read_text())

    assert lists
    for names in lists:
        assert set(names.split()) <= KNOWN
