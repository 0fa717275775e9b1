"""The Dockerfile, without building it: CI builds and starts the real image."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


class Instruction(NamedTuple):
    keyword: str
    value: str


def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def final_stage() -> list[Instruction]:
    every = instructions()
    return every[max(place for place, instruction in enumerate(every) if instruction.keyword == "FROM") :]


def values(keyword: str, stage: list[Instruction]) -> list[str]:
    return [instruction.value for instruction in stage if instruction.keyword == keyword]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for value in values("ENV", final_stage()) for pair in value.split())


@contextmanager
def server(status: int, asked: list[str]) -> Iterator[int]:
    """Yield the port of a local HTTP server that answers `status` and records paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield listener.server_port
        finally:
            listener.shutdown()
            thread.join()


def probe(port: int) -> int:
    """Run the image's health check as it stands and return its exit code."""
    command = json.loads(values("HEALTHCHECK", final_stage())[0].split("CMD", 1)[1])
    assert command[0] == "python"
    # A proxy in the environment, as Docker passes on from its host, must not get requests for this container.
    variables = {"PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *command[1:]], env=variables, capture_output=True, check=False).returncode


def test_base_images_are_pinned_to_a_python_and_a_debian_release() -> None:
    images = {value.split()[0] for value in values("FROM", instructions())}
    assert len(images) == 1, "the environment is moved between stages, so both need the same interpreter"
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-[a-z]+(@sha256:[0-9a-f]{64})?", images.pop())


def test_dependencies_come_from_the_lock_as_hashed_wheels() -> None:
    installs = [value for value in values("RUN", instructions()) if " install " in value]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert "for lock in $LOCKS" in installs[0]
    assert '--requirement "$lock"' in installs[0]
    assert values("ARG", instructions()) == ["LOCKS=requirements.lock"]


def test_the_final_stage_installs_nothing() -> None:
    assert not [value for value in values("RUN", final_stage()) if re.search(r"\b(apt|apt-get|pip|curl|wget)\b", value)]


def test_the_image_runs_as_an_unprivileged_user() -> None:
    stage = final_stage()
    users = values("USER", stage)
    assert len(users) == 1
    uid, gid = users[0].split(":")
    assert int(uid) >= 10_000
    assert f"--uid {uid} --gid {gid}" in " ".join(values("RUN", stage))
    keywords = [instruction.keyword for instruction in stage]
    assert not {"RUN", "COPY"} & set(keywords[keywords.index("USER") :]), "what is made is root's, not the server's"


def test_only_the_application_is_copied() -> None:
    copied = [value for value in values("COPY", final_stage()) if not value.startswith("--from=builder")]
    assert {value.split()[0] for value in copied} == {"app", "alembic", "alembic.ini", "web"}
    assert not values("ADD", instructions())


def test_the_build_context_holds_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {
        value.split()[0] for value in values("COPY", instructions()) if not value.startswith("--from")
    }


def test_no_secret_is_baked_in() -> None:
    named = " ".join(values("ENV", instructions()) + values("ARG", instructions()))
    assert not re.search(r"SECRET|PASSWORD|TOKEN|DATABASE|API_KEY", named)


def test_the_container_is_a_production_server_on_every_interface() -> None:
    assert environment()["ENVIRONMENT"] == "production"
    assert environment()["HOST"] == "0.0.0.0"  # noqa: S104
    assert environment()["PORT"] in values("EXPOSE", final_stage())


def test_the_server_itself_receives_sigterm() -> None:
    command = json.loads(values("CMD", final_stage())[0])
    assert command == ["python", "-m", "app", "serve"], "in exec form no shell stands between"
    assert values("STOPSIGNAL", final_stage()) == ["SIGTERM"]
    assert not values("ENTRYPOINT", final_stage())


def test_the_health_check_accepts_a_running_server_and_needs_no_database() -> None:
    asked: list[str] = []
    with server(200, asked) as port:
        assert probe(port) == 0
    assert asked == ["/livez"]


def test_the_health_check_refuses_a_failing_server() -> None:
    with server(503, []) as port:
        assert probe(port) != 0


def test_the_health_check_refuses_where_nothing_listens() -> None:
    with server(200, []) as port:
        pass
    assert probe(port) != 0


@pytest.mark.skipif(HADOLINT is None, reason="hadolint has no wheel for this machine")
def test_hadolint_finds_nothing() -> None:
    assert HADOLINT is not None
    result = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
