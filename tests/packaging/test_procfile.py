"""The Procfile's lines, run by a shell as Heroku does, with `env` in the place of the server."""

import re
import subprocess
from pathlib import Path

import pytest

from app.config import Settings

LINES = dict(
    line.split(": ", 1) for line in (Path(__file__).resolve().parents[2] / "Procfile").read_text().splitlines()
)
GIVEN = {"PATH": "/usr/bin:/bin", "PORT": "12345"}


def environment(line: str, program: str, given: dict[str, str]) -> dict[str, str]:
    assert LINES[line].endswith(f" {program}")
    command = LINES[line].removesuffix(program) + "env"
    out = subprocess.run(["/bin/sh", "-c", command], env=given, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", out, re.MULTILINE))


def test_web_serves_on_the_given_port_on_every_interface() -> None:
    found = environment("web", "python -m app serve", GIVEN)
    assert found["PORT"] == "12345"
    assert found["HOST"] == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1"), ({"WEB_CONCURRENCY": "2"}, "2"), ({"WEB_CONCURRENCY": "2", "WORKERS": "3"}, "3")],
)
def test_workers_fit_the_dyno_and_not_the_cores_of_its_host(given: dict[str, str], expected: str) -> None:
    assert environment("web", "python -m app serve", GIVEN | given)["WORKERS"] == expected


def test_web_is_a_production_server_that_the_settings_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    given = GIVEN | {"SECRET_KEY": "0123456789abcdef" * 3, "DATABASE_URL": "postgres://u:p@db:5432/name"}
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment("web", "python -m app serve", given).items():
        monkeypatch.setenv(name, value)
    found = Settings(_env_file=None)
    assert found.environment == "production"
    assert found.database is not None
    assert found.database.drivername == "postgresql+psycopg2"


def test_release_migrates_before_the_new_code_serves() -> None:
    assert environment("release", "alembic upgrade head", GIVEN)["ENVIRONMENT"] == "production"


@pytest.mark.parametrize("line", ["web", "worker"])
def test_servers_use_the_role_for_rows_if_there_is_one_and_the_release_the_owner(line: str) -> None:
    program = {"web": "python -m app serve", "worker": "python -m app worker"}[line]
    owner = {"DATABASE_URL": "postgres://owner:of-the-owner@db/name"}
    both = owner | {"APP_DATABASE_URL": "postgres://app:of-the-app@db/name"}
    assert environment(line, program, GIVEN | owner)["DATABASE_URL"] == owner["DATABASE_URL"]
    found = environment(line, program, GIVEN | both)
    assert found["DATABASE_URL"] == both["APP_DATABASE_URL"]
    assert not [value for value in found.values() if "of-the-owner" in value]
    assert environment("release", "alembic upgrade head", GIVEN | both)["DATABASE_URL"] == owner["DATABASE_URL"]


def test_the_worker_is_optional_and_named_as_such() -> None:
    assert environment("worker", "python -m app worker", GIVEN)["ENVIRONMENT"] == "production"
