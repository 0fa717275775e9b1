"""The GitHub workflows and Dependabot: pinned, least privileged, and deploying only what passed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import yaml

from app import __version__
from tests.packaging.test_deployment import git
from tests.programs import find_program

GITHUB = Path(__file__).resolve().parents[2] / ".github"
TEXT = (GITHUB / "workflows" / "ci.yml").read_text()
# PyYAML reads YAML 1.1, where the key `on` is the truth value.
WORKFLOW = yaml.safe_load(TEXT)
JOBS = WORKFLOW["jobs"]
DEPLOY = JOBS["deploy"]
ROLLBACK_TEXT = (GITHUB / "workflows" / "rollback.yml").read_text()
ROLLBACK = yaml.safe_load(ROLLBACK_TEXT)
Step = dict[str, object]


def steps(using: str) -> list[Step]:
    every = [cast("Step", step) for job in JOBS.values() for step in job["steps"]]
    return [step for step in every if str(step.get("uses", "")).startswith(using)]


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


def test_one_workflow_runs_on_pushes_and_pull_requests_and_the_other_by_hand() -> None:
    assert sorted(path.name for path in (GITHUB / "workflows").iterdir()) == ["ci.yml", "rollback.yml"]
    assert set(ROLLBACK[True]) == {"workflow_dispatch"}
    assert set(WORKFLOW[True]) == {"push", "pull_request"}, "above all not pull_request_target"


def test_every_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    lines = re.findall(r"uses: (.*)$", TEXT + ROLLBACK_TEXT, re.MULTILINE)
    assert lines
    assert not [line for line in lines if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)]


def test_every_job_has_a_time_limit_and_may_only_read_but_those_that_publish() -> None:
    assert WORKFLOW["permissions"] == ROLLBACK["permissions"] == {}
    jobs = JOBS | ROLLBACK["jobs"]
    assert jobs["publish"]["permissions"] == {
        "contents": "read", "packages": "write", "id-token": "write", "attestations": "write",
    }  # fmt: skip
    assert jobs["release"]["permissions"] == {"contents": "read", "packages": "write"}
    others = [job["permissions"] for name, job in jobs.items() if name not in {"publish", "release"}]
    assert all(permissions == {"contents": "read"} for permissions in others)
    assert all(job["timeout-minutes"] <= 60 for job in jobs.values())


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [cast("Step", step["with"]) for step in steps("actions/checkout")]
    assert len(checkouts) == len(JOBS)
    assert all(options["persist-credentials"] is False for options in checkouts)


def test_nothing_that_is_deployed_comes_from_a_cache() -> None:
    assert not [step for step in steps("actions/setup-python") if "cache" in cast("Step", step["with"])]
    assert not steps("actions/cache")


def test_the_suite_runs_on_the_oldest_and_the_newest_postgresql() -> None:
    test = JOBS["test"]
    assert [entry["postgres"] for entry in test["strategy"]["matrix"]["include"]] == ["15", "18"]
    assert test["env"]["TEST_DATABASE_URL"].startswith("postgresql://")
    assert "env" not in JOBS["embedded"], "the embedded server is what runs when nothing is configured"


def test_deployment_image_and_release_wait_for_every_check() -> None:
    last = {"deploy", "publish", "release"}
    assert all(set(JOBS[name]["needs"]) == set(JOBS) - last for name in last)


def test_published_image_is_the_tested_one() -> None:
    uploaded = next(step["with"] for step in JOBS["image"]["steps"] if "upload-artifact" in step.get("uses", ""))
    downloaded = next(step["with"] for step in JOBS["publish"]["steps"] if "download-artifact" in step.get("uses", ""))
    assert uploaded["name"] == downloaded["name"]
    saved, loaded = commands("image"), commands("publish")
    assert f"docker save social-posts-api | gzip > {uploaded['path']}" in saved
    assert f"docker load --input {uploaded['path']}\ndocker tag social-posts-api " in loaded
    assert "docker build " not in loaded + commands("release")
    compose = yaml.safe_load((GITHUB.parent / "docker-compose.yml").read_text())
    assert compose["services"]["api"]["image"] == "${IMAGE:-social-posts-api}"


@pytest.mark.needs("bash")
@pytest.mark.parametrize(
    ("tag", "status"), [(f"v{__version__}", 0), (__version__, 1), ("v9.9.9", 1), (f"v{__version__}-1", 1)]
)
def test_release_needs_the_tag_of_its_version(tag: str, status: int) -> None:
    (step,) = [step for step in JOBS["check"]["steps"] if step.get("name") == "The tag of a release is its version"]
    assert step["if"] == JOBS["release"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    # As in CI, where the first `python` has no packages installed yet.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [find_program("bash"), "-e", "-c", step["run"]], cwd=GITHUB.parent, env={"PATH": path, "GITHUB_REF_NAME": tag},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert done.stdout.startswith("::error title=Not released::") == bool(status)


@pytest.mark.needs("bash", "git")
@pytest.mark.parametrize(
    ("inspect", "status"), [("echo same", 0), ('echo "$*"', 1), ("exit 1", 1)], ids=["same", "other", "unknown"]
)
def test_release_fails_unless_the_version_is_the_published_image(tmp_path: Path, inspect: str, status: int) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\ncase "$*" in *" inspect "*) {inspect};; *) echo "$*" >> {tmp_path}/asked;; esac\n')
    docker.chmod(0o755)
    git("init", "--quiet", tmp_path, at=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=First", at=tmp_path)

    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "GITHUB_REPOSITORY": "You/Shop", "GITHUB_ACTOR": "you",
        "GITHUB_REF_NAME": "v0.1.0", "TOKEN": "token",
    }  # fmt: skip
    done = subprocess.run(
        [find_program("bash"), "-e", "-c", commands("release")], cwd=tmp_path, env=environment, check=False
    )

    assert done.returncode == status
    tagged = f"--tag ghcr.io/you/shop:0.1.0 ghcr.io/you/shop:{git('rev-parse', 'HEAD', at=tmp_path)}"
    assert (tagged in (tmp_path / "asked").read_text()) == (inspect != "exit 1")


def test_only_a_push_to_main_publishes_the_image_with_what_was_built_and_of_what() -> None:
    assert JOBS["publish"]["if"] == DEPLOY["if"]
    provenance, materials = [cast("Step", step["with"]) for step in steps("actions/attest")]
    assert "sbom-path" not in provenance
    assert materials["sbom-path"] == "sbom.cdx.json"
    assert provenance["subject-digest"] == materials["subject-digest"] == "${{ steps.image.outputs.digest }}"


def test_vulnerabilities_are_looked_up_for_everything_that_is_deployed_but_for_one_exception() -> None:
    (audit,) = [str(step["run"]) for step in JOBS["audit"]["steps"] if "pip-audit " in str(step.get("run", ""))]
    assert "--strict" in audit, "what could not be looked up is a failure"
    assert "--requirement requirements.lock" in audit
    assert re.findall(r"--ignore-vuln (\S+)", audit) == ["CVE-2024-23342"]
    assert "# CVE-2024-23342: " in TEXT


def test_a_rollback_goes_through_the_gate_and_never_runs_beside_a_deployment() -> None:
    (job,) = ROLLBACK["jobs"].values()
    assert job["if"] == "github.ref == 'refs/heads/main'"
    assert job["environment"] == DEPLOY["environment"]
    assert ROLLBACK["concurrency"] == DEPLOY["concurrency"]
    assert "inputs." not in "".join(str(step.get("run", "")) for step in job["steps"]), "inputs are no code"
    assert ROLLBACK[True]["workflow_dispatch"]["inputs"]["migrations_are_compatible"]["default"] is False


def test_only_a_push_to_main_is_deployed_through_the_gate_one_at_a_time() -> None:
    assert DEPLOY["if"] == "github.event_name == 'push' && github.ref == 'refs/heads/main'"
    assert DEPLOY["environment"] == "production"
    assert DEPLOY["concurrency"] == {"group": "deploy-production", "cancel-in-progress": False}


def test_secrets_reach_the_deployment_only() -> None:
    assert set(re.findall(r"secrets\.(\w+)", TEXT)) == {"HEROKU_API_KEY", "HEROKU_APP_NAME"}
    assert [name for name, job in JOBS.items() if "secrets." in str(job)] == ["deploy"]


def test_zizmor_finds_nothing() -> None:
    zizmor = shutil.which("zizmor", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert zizmor is not None, "zizmor is one of the development requirements"
    command = [zizmor, "--offline", "--no-config", "--persona", "pedantic", "--format", "plain", str(GITHUB)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_dependabot_watches_everything_that_is_pinned_and_lets_releases_cool() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {
        "pip", "npm", "github-actions", "docker", "docker-compose",
    }  # fmt: skip
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)
