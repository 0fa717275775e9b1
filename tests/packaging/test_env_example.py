"""`.env.example` names every setting, states its true default and holds no secret."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app.config import TUTORIAL_DEFAULTS, Settings

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
NAMES = re.findall(r"^([A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_it_names_every_setting_once_and_no_other() -> None:
    assert sorted(NAMES) == sorted(name.upper() for name in Settings.model_fields)


def test_copied_unchanged_it_changes_nothing() -> None:
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_the_tutorials_defaults_can_be_chosen_in_a_copy(tmp_path: Path) -> None:
    copied = tmp_path / ".env"
    copied.write_text(EXAMPLE.read_text().replace("TUTORIAL_DEFAULTS=false", "TUTORIAL_DEFAULTS=true"))

    found = Settings(_env_file=copied)

    assert {name: getattr(found, name) for name in TUTORIAL_DEFAULTS} == TUTORIAL_DEFAULTS


def test_filled_in_it_gives_development_settings(tmp_path: Path) -> None:
    filled = tmp_path / ".env"
    filled.write_text(
        EXAMPLE.read_text()
        .replace("SECRET_KEY=", f"SECRET_KEY={'0123456789abcdef' * 3}")
        .replace("DATABASE_URL=", "DATABASE_URL=postgres://u:p@localhost/name")
    )
    found = Settings(_env_file=filled)
    assert found.environment == "development"
    assert found.signing_secret == "0123456789abcdef" * 3
    assert found.database is not None
    assert found.database.database == "name"


def test_it_holds_no_secret() -> None:
    secret = [name for name in NAMES if re.search(r"SECRET|PASSWORD$|TOKEN$|_URL$", name)]
    assert "SECRET_KEY" in secret
    assert not [name for name, value in dotenv_values(EXAMPLE).items() if name in secret and value]


def test_every_setting_is_explained() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert not [line for above, line in pairwise(lines) if re.match("[A-Z]", line) and not above.startswith("# ")]
