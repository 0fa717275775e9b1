"""The deployment script with real git and real HTTP, its addresses turned to this machine."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from tests.programs import find_program

SCRIPT = Path(__file__).resolve().parents[2] / ".github" / "scripts" / "deploy_heroku.sh"
KEY = "canary-0b5a3c"
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]

pytestmark = pytest.mark.needs("bash", "curl", "git")


class Asked(NamedTuple):
    path: str
    authorization: str | None


class Heroku(NamedTuple):
    url: str
    asked: list[Asked]


@contextmanager
def heroku(status: str) -> Iterator[Heroku]:
    """A fake of Heroku's API for the last release.

    It requests git's password and refuses it.
    """
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(Asked(self.path, self.headers["Authorization"]))
            if self.path.endswith("/releases"):
                body = json.dumps([{"status": status, "version": 7}]).encode()
                self.send_response(206)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response(401 if self.headers["Authorization"] is None else 403)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Heroku(f"http://127.0.0.1:{listener.server_port}", asked)
        finally:
            listener.shutdown()
            thread.join()


def git(*arguments: str | Path, at: Path) -> str:
    command = [find_program("git"), *IDENTITY, *arguments]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with one commit, beside the bare one that stands where Heroku's is."""
    git("init", "--quiet", "--bare", "--initial-branch=main", tmp_path / "remote" / "shop.git", at=tmp_path)
    git("init", "--quiet", "--initial-branch=main", tmp_path / "work", at=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=First", at=tmp_path / "work")
    return tmp_path / "work"


def deploy(work: Path, git_url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{git_url}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.heroku.com/",
        **variables,
    }
    return subprocess.run(
        [find_program("bash"), SCRIPT], cwd=work, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def pushed(work: Path) -> str:
    return git("for-each-ref", "--format=%(objectname) %(refname)", at=work.parent / "remote" / "shop.git")


@pytest.mark.parametrize("given", [{}, {"HEROKU_API_KEY": KEY}, {"HEROKU_APP_NAME": "shop", "HEROKU_API_KEY": ""}])
def test_without_both_secrets_nothing_happens_and_the_log_says_so(work: Path, given: dict[str, str]) -> None:
    with heroku("succeeded") as remote:
        result = deploy(work, f"file://{work.parent}/remote", HEROKU_API_URL=remote.url, **given)
    assert (result.returncode, pushed(work), remote.asked) == (0, "", [])
    assert "::notice title=Not deployed::" in result.stdout


def test_a_name_that_is_no_app_is_refused_before_the_key_goes_anywhere(work: Path) -> None:
    with heroku("succeeded") as remote:
        given = {"HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop.git@evil.example/"}
        result = deploy(work, remote.url, HEROKU_API_URL=remote.url, **given)
    assert (result.returncode, remote.asked) == (1, [])


def test_the_commit_is_pushed_and_its_release_awaited(work: Path) -> None:
    with heroku("succeeded") as remote:
        given = {"HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop", "HEROKU_API_URL": remote.url}
        result = deploy(work, f"file://{work.parent}/remote", **given)
    assert result.returncode == 0, result.stderr
    assert pushed(work) == f"{git('rev-parse', 'HEAD', at=work)} refs/heads/main"
    assert remote.asked == [Asked("/apps/shop/releases", f"Bearer {KEY}")]


def test_failed_migrations_fail_the_deployment(work: Path) -> None:
    with heroku("failed") as remote:
        given = {"HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop", "HEROKU_API_URL": remote.url}
        result = deploy(work, f"file://{work.parent}/remote", **given)
    assert result.returncode == 1
    assert "::error title=Release failed::" in result.stdout


def test_an_older_commit_never_replaces_a_newer_one(work: Path) -> None:
    git("commit", "--quiet", "--allow-empty", "--message=Second", at=work)
    git("push", "--quiet", work.parent / "remote" / "shop.git", "main", at=work)
    newer = pushed(work)
    git("reset", "--quiet", "--hard", "HEAD~1", at=work)
    git("commit", "--quiet", "--allow-empty", "--message=Other", at=work)
    with heroku("succeeded") as remote:
        given = {"HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop", "HEROKU_API_URL": remote.url}
        result = deploy(work, f"file://{work.parent}/remote", **given)
    assert result.returncode != 0
    assert (pushed(work), remote.asked) == (newer, [])


def test_git_hands_the_key_to_heroku_and_no_log_shows_it(work: Path) -> None:
    with heroku("succeeded") as remote:
        given = {"HEROKU_API_KEY": KEY, "HEROKU_APP_NAME": "shop", "HEROKU_API_URL": remote.url}
        result = deploy(work, remote.url, **given)
    assert result.returncode != 0
    offered = [asked.authorization for asked in remote.asked]
    assert offered == [None, "Basic " + base64.b64encode(f"_:{KEY}".encode()).decode()]
    assert KEY not in result.stdout + result.stderr
