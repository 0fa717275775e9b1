"""CHANGELOG.md and docs/releases.md describe the version that app/__init__.py states."""

import datetime
import re
import subprocess
from pathlib import Path

import pytest

from app import __version__
from tests.conftest import ROOT
from tests.packaging.test_deployment import git
from tests.programs import find_program

HEADINGS = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_changelog_begins_with_what_is_unreleased_and_then_has_this_version_with_its_date() -> None:
    assert HEADINGS[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in HEADINGS[1:]]
    found = [match.groups() for match in released if match]
    assert len(found) == len(released), HEADINGS
    assert found[0][0] == __version__
    dates = [datetime.date.fromisoformat(date) for _, date in found]
    assert dates == sorted(dates, reverse=True)


def test_there_are_upgrade_notes_for_this_version() -> None:
    notes = (ROOT / "docs" / "releases.md").read_text()
    assert f"\n### To {__version__}\n" in notes
    assert f"\n### To the release after {__version__}\n" in notes


@pytest.mark.needs("bash", "git")
@pytest.mark.parametrize("where", ["Docker Compose", "systemd"])
def test_documented_commands_check_out_a_release_tagged_since_the_clone(tmp_path: Path, where: str) -> None:
    (row,) = re.findall(rf"^\| {where} \| (.*) \|$", (ROOT / "docs" / "releases.md").read_text(), re.MULTILINE)
    (command,) = re.findall(r"`(git [^`]*)`", row)
    tag = command.split()[-1]
    origin, checkout = tmp_path / "origin", tmp_path / "a checkout"
    git("init", "--quiet", "--initial-branch=main", origin, at=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=First", at=origin)
    git("clone", "--quiet", "--branch", "main", origin, checkout, at=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=Second", at=origin)
    git("tag", tag, at=origin)

    done = subprocess.run(
        [find_program("bash"), "-e", "-c", command], cwd=checkout, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert git("rev-parse", "HEAD", at=checkout) == git("rev-parse", tag, at=origin)
