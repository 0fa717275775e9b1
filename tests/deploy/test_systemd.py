"""The systemd units: systemd finds no fault in them, and few rights that could be removed."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from app.config import Settings
from tests.conftest import ROOT
from tests.programs import find_program

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
# An unrestricted service has an exposure of 10; systemd calls exposures below 2 fine.
MAX_EXPOSURE = 1.5
# These get the password of the role that owns the tables.
OF_THE_OWNER = {"social-posts-migrate", "social-posts-backup"}

needs_systemd = pytest.mark.needs("systemd-analyze")


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.read(ROOT / "deploy" / "systemd" / f"{name}.service")
    return parser


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([find_program("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    paths = [*UNITS, ROOT / "deploy" / "systemd" / "social-posts-backup.timer"]
    for path in paths:
        # Their programs are not on this machine; others stand in.
        text = re.sub(r"/opt/social-posts/\S*/\w+(\.sh)?", "/bin/true", path.read_text())
        (tmp_path / path.name).write_text(text)

    verified = analyze("verify", "--man=no", *(tmp_path / path.name for path in paths))

    assert [line for line in verified.stderr.splitlines() if "social-posts" in line] == []
    assert len(UNITS) == 4


@needs_systemd
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_may_do_little(path: Path) -> None:
    found = analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", path)

    assert found.returncode == 0, found.stdout + found.stderr
    assert "Overall exposure level" in found.stdout


@needs_systemd
def test_the_threshold_is_one(tmp_path: Path) -> None:
    (tmp_path / "open.service").write_text("[Service]\nExecStart=/bin/true\n")

    assert analyze(
        "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", tmp_path / "open.service"
    ).returncode


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_as_an_unprivileged_user_and_holds_no_secret(path: Path) -> None:
    service = unit(path.stem)["Service"]
    files = re.findall(r"^EnvironmentFile=(.*)$", path.read_text(), re.MULTILINE)

    if path.stem in OF_THE_OWNER:  # Of another user than the servers, which could read this environment in /proc.
        assert (service["DynamicUser"], service.get("User")) == ("yes", None)
        assert files[-1] == "/etc/social-posts/owner"
    else:
        assert (service["User"], service["Group"]) == ("social-posts", "social-posts")
        assert files == ["/etc/social-posts/environment"]
    assert not re.search(r"(?m)^[^#\n]*(SECRET|PASSWORD|TOKEN|DATABASE_URL)", path.read_text())


@needs_systemd
def test_the_backup_runs_every_night() -> None:
    timer = configparser.RawConfigParser()
    timer.read(ROOT / "deploy" / "systemd" / "social-posts-backup.timer")
    when = timer["Timer"]["OnCalendar"]
    times = analyze("calendar", "--iterations=3", "--base-time=2026-06-01 12:00 UTC", f"{when} UTC").stdout

    assert re.findall(r"2026-06-\d\d \d\d:\d\d", times) == [f"2026-06-0{day} 03:00" for day in (2, 3, 4)]


def test_migrations_come_before_everything_else() -> None:
    for name in ("social-posts", "social-posts-worker"):
        assert unit(name)["Unit"]["Requires"] == "social-posts-migrate.service"
        assert "social-posts-migrate.service" in unit(name)["Unit"]["After"]
    assert unit("social-posts-migrate")["Service"]["Type"] == "oneshot"
    assert unit("social-posts-migrate")["Service"]["ExecStart"].endswith("/alembic upgrade head")


def test_the_api_unit_leaves_background_work_to_the_worker_unit() -> None:
    text = (ROOT / "deploy" / "systemd" / "social-posts.service").read_text()
    names = re.findall(r"\b([A-Z_]+)=", "".join(re.findall(r"^Environment=(ENVIRONMENT.*)$", text, re.MULTILINE)))

    assert {"MAIL_ENABLED", "CLEANUP_INTERVAL_MINUTES"} <= set(names)
    assert {name.lower() for name in names} <= set(Settings.model_fields)
    assert unit("social-posts-worker")["Service"]["ExecStart"].endswith("-m app worker")
