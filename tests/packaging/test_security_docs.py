"""docs/security.md is true: the tests and settings that it names exist."""

import re

from app.config import Settings
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "security.md").read_text()


def test_every_test_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)

    assert len(named) >= 20
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_every_requirement_but_those_without_a_trace_names_a_test() -> None:
    rows = re.findall(r"^\| (\d+\.\d+\.\d+)(.*)$", DOCUMENT, re.MULTILINE)

    assert len(rows) >= 25
    assert [number for number, rest in rows if "tests/" not in rest] == ["6.4.2"]


def test_every_setting_it_names_exists() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\S+)?`", DOCUMENT))

    assert {"PUBLIC_URL", "MAIL_ENABLED"} <= named
    assert named <= {name.upper() for name in Settings.model_fields}
