"""First starts: misspelt settings, and the ways to start a server that the tutorial and other projects teach."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from app import __version__
from app.cli.commands import cli
from app.main import app as application
from tests.cli.test_commands import Start, app, copy_of_the_project, start
from tests.conftest import ROOT
from tests.fixtures import free_port
from tests.programs import find_program

__all__ = ["copy_of_the_project", "start"]
MISSPELT = "DATABSE_URL is not a setting and has no effect: did you mean DATABASE_URL?"


def uvicorn(**environment: str) -> list[str]:
    """Start plain uvicorn, which has to fail, and return its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"], cwd=ROOT,
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return [line for line in done.stderr.splitlines() if not line.startswith("INFO")]


def test_misspelt_setting_is_named_where_the_database_is_missing(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("DATABSE_URL=postgresql://localhost/posts\nCOMPOSE_PROJECT_NAME=posts\nMY_TOKEN=1\n")

    refused = app("serve", DATABASE_URL="", ENV_FILE=str(file))

    assert refused.returncode == 1
    assert refused.stderr == (
        "error: no database is configured; set DATABASE_URL, or use: python -m app run (" + MISSPELT + ")\n"
    )


def test_misspelt_setting_is_a_warning_of_serve_and_doctor(start: Start, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SESION_IDLE_DAYS=3\n")

    server = start("serve", ENV_FILE=str(file), DATABSE_URL="x")
    server.wait_for(r"(WARNING app DATABSE_URL is not a setting)")
    server.wait_for(
        r"(WARNING app SESION_IDLE_DAYS is not a setting and has no effect: did you mean SESSION_IDLE_DAYS)"
    )
    examined = app("doctor", ENV_FILE=str(file), DATABSE_URL="x")

    assert f"warn  configuration: {MISSPELT}" in examined.stdout


def test_options_of_serve_win_over_the_settings(start: Start) -> None:
    port = free_port()

    server = start("serve", "--host", "127.0.0.1", "--port", str(port), HOST="192.0.2.1", PORT="1", WORKERS="2")

    assert server.wait_for(r"serving on (\S+)") == f"http://127.0.0.1:{port}"


def test_serve_refuses_to_reload_and_says_what_does() -> None:
    refused = app("serve", "--reload")

    assert refused.returncode == 1
    assert refused.stderr == "error: serve does not reload; use: make dev, or python -m app run --reload\n"


def test_run_reloads_when_a_file_changes(start: Start, copy_of_the_project: Path) -> None:
    server = start("run", "--reload", root=copy_of_the_project)
    address = server.wait_for(r"Serving +(\S+)")
    file = copy_of_the_project / "app" / "routers" / "meta.py"

    file.write_text(file.read_text().replace("Hello. This is", "Changed. This is"))

    deadline = time.monotonic() + 60
    while not httpx2.get(address, timeout=30).json()["message"].startswith("Changed."):
        assert time.monotonic() < deadline, server.said
        time.sleep(0.1)
    assert server.end(signal.SIGINT, whole_group=True) in {0, 130}
    assert "Traceback" not in server.said


def test_plain_uvicorn_without_a_database_says_in_one_line_what_to_do() -> None:
    assert uvicorn(DATABASE_URL="") == [
        "ERROR:    error: no database is configured; set DATABASE_URL, or use: python -m app run",
        "ERROR:    Application startup failed. Exiting.",
    ]


def test_plain_uvicorn_with_an_invalid_setting_says_so_in_one_line() -> None:
    (line,) = uvicorn(SECRET_KEY="weak")

    assert line.startswith("error: SECRET_KEY is shorter than 32 bytes")


def test_plain_uvicorn_serves(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        try:
            deadline = time.monotonic() + 60
            status = 0
            while status != 200:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
                try:
                    status = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
                except httpx2.TransportError:
                    continue
        finally:
            process.terminate()

    assert "Traceback" not in (tmp_path / "log").read_text()


def test_fastapi_commands_find_the_application() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["tool"]["fastapi"]["entrypoint"] == f"{application.__module__}:app" == "app.main:app"


def test_version_is_stated_once_and_the_command_and_openapi_report_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert CliRunner().invoke(cli, ["--version"]).stdout == f"{__version__}\n"
    assert application.api.version == __version__
    assert ("version" in project, project["dynamic"]) == (False, ["version"])


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["python", "-m", "app", "se"], ["serve", "seed"]),
        (["python", "-m", "app", "seed", "--v"], ["--votes"]),
        (["python", "-m", "app", "user", "cr"], ["create"]),
        (["python", "-m", "pip", "in"], []),
    ],
)
def test_completion_offers_commands_and_options(typed: list[str], offered: list[str]) -> None:
    script = CliRunner().invoke(cli, ["completion"]).stdout
    script += f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; COMPREPLY=()\n"
    script += '_social_posts_api; printf "%s\\n" "${COMPREPLY[@]}"\n'

    done = subprocess.run([find_program("bash"), "-u"], input=script, capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert done.stdout.split() == offered
