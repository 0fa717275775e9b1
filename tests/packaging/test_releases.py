"""CHANGELOG.md and docs/releases.md describe the version that app/__init__.py states."""

import datetime
import re

from app import __version__
from tests.conftest import ROOT

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
