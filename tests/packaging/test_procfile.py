"""The Procfile's lines and the hook of the build, run as Heroku does, with `env` in the place of the server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.config import Settings
from tests.conftest import ROOT
from tests.packaging.test_workflows import JOBS
from tests.programs import find_program

LINES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
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


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder with the files of the repository that a build on Heroku begins with."""
    for name in ("Dockerfile", "requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def prepare(build: Path) -> int:
    return subprocess.run([find_program("bash"), ROOT / "bin" / "pre_compile"], cwd=build, check=False).returncode


@pytest.mark.needs("bash")
def test_build_installs_the_locked_packages_on_the_python_that_ci_tested(build: Path) -> None:
    assert prepare(build) == 0
    assert (build / "requirements.txt").read_bytes() == (ROOT / "requirements.lock").read_bytes()
    tested = {entry["python"] for entry in JOBS["test"]["strategy"]["matrix"]["include"]}
    assert (build / ".python-version").read_text().strip() in tested


@pytest.mark.needs("bash")
def test_build_fails_if_the_image_names_no_python(build: Path) -> None:
    (build / "Dockerfile").write_text("FROM debian:trixie-slim\n")

    assert prepare(build) != 0


@pytest.mark.needs("bash")
def test_release_on_heroku_migrates_only_if_the_build_installed_the_lock(build: Path) -> None:
    command = LINES["release"].replace("alembic upgrade head", "echo migrated")

    def release() -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=build, env=GIVEN | {"DYNO": "release.1"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()[-1]

    refused = release()
    assert refused[0] != 0
    assert refused[1].startswith("requirements.txt requirements.lock differ")
    assert prepare(build) == 0
    assert release() == (0, "migrated")
