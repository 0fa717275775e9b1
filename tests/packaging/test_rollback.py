"""The rollback script with real git and real HTTP, Heroku's address turned to this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.packaging.test_deployment import KEY, git

SCRIPT = ROOT / ".github" / "scripts" / "rollback_heroku.py"

pytestmark = pytest.mark.needs("git")


class Heroku:
    """A fake of Heroku's API with a list of releases; new ones have the configured status."""

    def __init__(self, commits: list[str]) -> None:
        self.commits = {f"slug{number}": commit for number, commit in enumerate(commits, 1)}
        self.outcome = "succeeded"
        self.made: list[dict[str, str]] = []
        self.authorizations: set[str | None] = set()
        self.url = ""

    def releases(self) -> list[dict[str, Any]]:
        slugs = [*self.commits]
        return [
            {"version": 3, "status": "succeeded", "current": True, "slug": {"id": slugs[2]}},
            {"version": 2, "status": "failed", "current": False, "slug": {"id": slugs[1]}},
            {"version": 1, "status": "succeeded", "current": False, "slug": {"id": slugs[0]}},
        ]

    def answer(self, path: str, body: bytes) -> object:
        if path.startswith("/apps/shop/slugs/"):
            return {"commit": self.commits[path.rpartition("/")[2]]}
        if path != "/apps/shop/releases":
            assert path == "/apps/shop/releases/4"
            return {"status": self.outcome}
        if body:
            self.made.append(json.loads(body))
            return {"version": 4, "status": "pending"}
        return self.releases()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository of three commits; the last adds a migration."""
    git("init", "--quiet", "--initial-branch=main", tmp_path, at=tmp_path)
    for number in (1, 2, 3):
        (tmp_path / "alembic" / "versions").mkdir(parents=True, exist_ok=True)
        (tmp_path / "alembic" / "versions" / f"{max(number, 2)}.py").write_text("")
        (tmp_path / "app.py").write_text(str(number))
        git("add", "--all", at=tmp_path)
        git("commit", "--quiet", f"--message={number}", at=tmp_path)
    return tmp_path


@pytest.fixture
def commits(work: Path) -> list[str]:
    return git("rev-list", "--reverse", "HEAD", at=work).split()


@pytest.fixture
def heroku(commits: list[str]) -> Iterator[Heroku]:
    remote = Heroku(commits)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            remote.authorizations.add(self.headers["Authorization"])
            length = int(self.headers["Content-Length"] or 0)
            body = json.dumps(remote.answer(self.path, self.rfile.read(length))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name.

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            remote.url = f"http://127.0.0.1:{listener.server_port}"
            yield remote
        finally:
            listener.shutdown()
            thread.join()


def roll_back(work: Path, heroku: Heroku, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"], "HEROKU_API_URL": heroku.url, "HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop",
    } | variables  # fmt: skip
    return subprocess.run(
        [sys.executable, SCRIPT, target], cwd=work, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("way", ["release", "commit", "short commit"])
def test_the_build_of_an_earlier_release_runs_again(work: Path, heroku: Heroku, commits: list[str], way: str) -> None:
    target = {"release": "v1", "commit": commits[0], "short commit": commits[0][:10]}[way]

    done = roll_back(work, heroku, target, MIGRATIONS_ARE_COMPATIBLE="true")

    assert done.returncode == 0, done.stdout + done.stderr
    assert heroku.made == [{"slug": "slug1", "description": f"Rollback to {commits[0]}"}]
    assert heroku.authorizations == {f"Bearer {KEY}"}
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("said", [{}, {"MIGRATIONS_ARE_COMPATIBLE": "false"}])
def test_migrations_that_the_target_does_not_know_are_named_and_nothing_is_done(
    work: Path, heroku: Heroku, said: dict[str, str]
) -> None:
    refused = roll_back(work, heroku, "v1", **said)

    assert refused.returncode == 1
    assert "alembic/versions/3.py" in refused.stdout
    assert "alembic/versions/2.py" not in refused.stdout
    assert heroku.made == []


def test_without_such_migrations_no_confirmation_is_needed(work: Path, heroku: Heroku, commits: list[str]) -> None:
    git("rm", "--quiet", "alembic/versions/3.py", at=work)
    git("commit", "--quiet", "--amend", "--message=3", at=work)
    heroku.commits["slug3"] = git("rev-parse", "HEAD", at=work)

    assert roll_back(work, heroku, commits[0]).returncode == 0
    assert [made["slug"] for made in heroku.made] == ["slug1"]


@pytest.mark.parametrize("target", ["v2", "v9", "v3", "main", "v1; true", "", "abc", "0" * 40])
def test_targets_that_never_ran_or_run_already_or_do_not_exist_are_refused(
    work: Path, heroku: Heroku, target: str
) -> None:
    refused = roll_back(work, heroku, target, MIGRATIONS_ARE_COMPATIBLE="true")

    assert refused.returncode == 1
    assert "::error title=Not rolled back::" in refused.stdout
    assert heroku.made == []


def test_a_release_that_fails_fails_the_rollback(work: Path, heroku: Heroku) -> None:
    heroku.outcome = "failed"

    failed = roll_back(work, heroku, "v1", MIGRATIONS_ARE_COMPATIBLE="true")

    assert failed.returncode == 1
    assert "::error title=Rollback failed::" in failed.stdout
