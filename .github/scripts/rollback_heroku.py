#!/usr/bin/env python3
"""Roll the Heroku app back to an earlier release, and fail unless that succeeds: `rollback_heroku.py TARGET`.

TARGET is a release (v42) or a released commit. Its original build runs again, so that nothing can differ. The
configuration stays, so that no replaced secret returns.

Migrations stay. They are compatible with the release before them (expand, deploy, contract), but not with older ones.
If TARGET lacks migrations of the current release, the script lists them and stops. To continue, check each of them and
set MIGRATIONS_ARE_COMPATIBLE to `true`.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any

API_URL = os.environ.get("HEROKU_API_URL", "https://api.heroku.com")
ATTEMPTS, PAUSE_SECONDS = 60, 5


def fail(title: str, message: str) -> None:
    print(f"::error title={title}::{message}")  # noqa: T201 - for the log of the workflow.
    sys.exit(1)


def ask(path: str, body: dict[str, str] | None = None) -> Any:
    """Call Heroku's API for the app. Lists have the newest releases first."""
    request = urllib.request.Request(  # noqa: S310 - the address is ours.
        f"{API_URL}/apps/{os.environ['HEROKU_APP_NAME']}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={
            "Accept": "application/vnd.heroku+json; version=3",
            "Authorization": f"Bearer {os.environ['HEROKU_API_KEY']}",
            "Content-Type": "application/json",
            "Range": "version ..; order=desc,max=200",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def commit_of(release: dict[str, Any]) -> str:
    return str(ask(f"/slugs/{release['slug']['id']}")["commit"])


def find(releases: list[dict[str, Any]], target: str) -> tuple[dict[str, Any], str]:
    """Return the newest successful release that matches the target, and its commit."""
    for release in releases:
        if release["status"] != "succeeded" or not release["slug"]:
            continue
        if target.startswith("v"):
            if f"v{release['version']}" == target:
                return release, commit_of(release)
        elif (commit := commit_of(release)).startswith(target):
            return release, commit
    fail("Not rolled back", f"{target} is not among the last successful releases.")
    raise AssertionError("unreachable")


def unknown_migrations(target: str, present: str) -> list[str]:
    """Return the migrations of the current release that the target lacks."""
    command = ["git", "diff", "--name-only", "--diff-filter=A", target, present, "--", "alembic/versions"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603


def main() -> None:
    target = sys.argv[1]
    if not re.fullmatch(r"v[0-9]{1,9}|[0-9a-f]{7,40}", target):
        fail("Not rolled back", "The target is neither a release (v42) nor a commit.")
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,28}[a-z0-9]", os.environ.get("HEROKU_APP_NAME", "")):
        fail("Not rolled back", "HEROKU_APP_NAME is not the name of a Heroku app.")
    releases = ask("/releases")
    release, commit = find(releases, target)
    present = next(each for each in releases if each["current"])
    if release["slug"]["id"] == present["slug"]["id"]:
        fail("Not rolled back", f"{commit} is already running.")
    migrations = unknown_migrations(commit, commit_of(present))
    if migrations and os.environ.get("MIGRATIONS_ARE_COMPATIBLE") != "true":
        fail("Not rolled back", f"{commit} lacks these migrations, which stay: {', '.join(migrations)}")
    made = ask("/releases", {"slug": release["slug"]["id"], "description": f"Rollback to {commit}"})
    for _ in range(ATTEMPTS):
        status = ask(f"/releases/{made['version']}")["status"]
        if status == "succeeded":
            print(f"v{made['version']} runs {commit} again.")  # noqa: T201
            return
        if status != "pending":
            fail("Rollback failed", f"Heroku reports {status}; the previous release keeps running.")
        time.sleep(PAUSE_SECONDS)
    fail("Rollback unknown", f"Heroku had not finished after {ATTEMPTS * PAUSE_SECONDS} seconds.")


if __name__ == "__main__":
    main()
