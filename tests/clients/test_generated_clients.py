"""Public linters find nothing in openapi.json, and generated clients compile in strict mode and work.

The tools are those of package-lock.json and requirements.lock, installed into a temporary folder. Without Node, npm or
their registries the tests are skipped.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.conftest import ROOT
from tests.fixtures import Server
from tests.programs import find_program

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parent
# What @hey-api/openapi-ts requires.
OLDEST_NODE = (20, 19)
UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|NewConnectionError|NameResolutionError"
)
# Linters and generators look for updates and report usage otherwise.
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
PYTHON_CLIENT = "social_posts_api_client"


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """The output of a command that succeeds. Programs in `path` are found first."""
    environment = os.environ | QUIET
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def install(*command: str | Path, cwd: Path, what: str) -> None:
    """Install packages, or skip the test if their registry cannot be reached."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600, check=False, env=os.environ | QUIET
    )
    if done.returncode and UNREACHABLE.search(done.stdout + done.stderr):
        pytest.skip(f"the {what} registry cannot be reached")
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with openapi.json, the files beside this one, and the installed packages of package-lock.json."""
    for program in ("node", "npm"):
        find_program(program)
    version = tuple(int(number) for number in run("node", "--version", cwd=ROOT)[1:].split(".")[:2])
    if version < OLDEST_NODE:
        pytest.skip(f"node is older than {'.'.join(map(str, OLDEST_NODE))}")
    folder = tmp_path_factory.mktemp("workshop")
    for source in (ROOT / "openapi.json", *FOLDER.glob("*.json"), *FOLDER.glob("*.yaml"), FOLDER / "session.ts"):
        shutil.copy(source, folder)
    install("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, what="npm")
    return folder


@pytest.fixture(scope="module")
def typescript(workshop: Path) -> Path:
    """The folder, with a client of each generator in `generated`."""
    generated = workshop / "generated"
    tool(workshop, "openapi-typescript", "openapi.json", "--output", generated / "openapi-typescript.ts")
    tool(workshop, "openapi-ts", "--input", "openapi.json", "--output", generated / "hey-api")
    tool(workshop, "orval", "--input", "openapi.json", "--output", generated / "orval.ts", "--client", "fetch")
    return workshop


@pytest.fixture(scope="module")
def python_bin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of an environment with the packages of requirements.lock."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=True)
    lock = FOLDER / "requirements.lock"
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    install(*pip, "--require-hashes", "--requirement", lock, cwd=folder, what="Python")
    yield folder / "bin"
    shutil.rmtree(folder)


def tool(workshop: Path, name: str, *arguments: str | Path) -> str:
    return run(workshop / "node_modules" / ".bin" / name, *arguments, cwd=workshop)


def test_spectral_finds_nothing(workshop: Path) -> None:
    arguments = ["lint", "openapi.json", "--ruleset", "spectral.yaml", "--format", "json", "--quiet"]

    assert json.loads(tool(workshop, "spectral", *arguments, "--fail-severity", "hint")) == []


def test_redocly_finds_nothing(workshop: Path) -> None:
    arguments = ["lint", "openapi.json", "--config", "redocly.yaml", "--format", "json"]

    found = json.loads(tool(workshop, "redocly", *arguments))

    assert found["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, found["problems"]


def test_clients_in_typescript_compile_in_strict_mode(typescript: Path) -> None:
    tool(typescript, "tsc", "--strict", "--noEmit", "--project", "tsconfig.json")

    assert len(list((typescript / "generated").rglob("*.ts"))) > 10
    for path in (typescript / "generated").rglob("*.ts"):
        assert not re.search(r"\b(?:VALUE|NUMBER)_\d", path.read_text()), path


def test_a_client_in_typescript_works_on_a_running_server(
    typescript: Path, connection: Connection, start_server: Callable[..., Server]
) -> None:
    tool(typescript, "tsc", "--project", "tsconfig.session.json")
    (typescript / "built" / "package.json").write_text('{"type": "commonjs"}')

    printed = run("node", "built/session.js", start_server().url, cwd=typescript)

    (user_id,) = connection.exec_driver_sql("SELECT id FROM users").one()
    assert json.loads(printed) == {
        "tokenType": "bearer",
        "isSamePost": True,
        "replayed": "true",
        "message": "successfully added vote",
        "votes": 1,
        "refused": [409, "already_voted", "string"],
        "voted": True,
        "page": [["Moths", "grace@example.com", 1, True]],
    }
    assert connection.exec_driver_sql("SELECT user_id FROM votes").all() == [(user_id,)]
    assert connection.exec_driver_sql("SELECT count(*) FROM posts").one() == (1,)


@pytest.mark.parametrize("values", ["Schema", "Example"])
def test_a_postman_import_can_be_sent_twice(workshop: Path, values: str) -> None:
    """No request has a fixed `Idempotency-Key`, and bodies that are made from examples are those of the document."""
    arguments = ["-s", "openapi.json", "-o", f"{values}.json", "-O", f"parametersResolution={values}"]
    tool(workshop, "openapi2postmanv2", *arguments)

    requests = list(_requests(json.loads((workshop / f"{values}.json").read_text())["item"]))

    assert len(requests) > 40
    for request in requests:
        assert "idempotency-key" not in {header["key"].lower() for header in request["header"]}
    if values == "Example":
        (vote,) = [each for each in requests if each["method"] == "POST" and each["url"]["path"] == ["vote"]]
        assert json.loads(vote["body"]["raw"]) == {"post_id": 1, "vote_dir": 1}


def _requests(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if "item" in item:
            yield from _requests(item["item"])
        else:
            yield item["request"]


def test_the_postman_collection_signs_in_and_carries_the_token(
    workshop: Path, connection: Connection, start_server: Callable[..., Server]
) -> None:
    (workshop / "collection.json").write_text(run(sys.executable, "-m", "app", "postman", cwd=ROOT))
    url = start_server(RATE_LIMITS_ENABLED="false").url

    def send(*options: str) -> list[tuple[str, int]]:
        variables = ("--env-var", f"base_url={url}", "--env-var", "email=newman@example.com")
        report = ("--reporters", "json", "--reporter-json-export", "report.json")
        tool(workshop, "newman", "run", "collection.json", *variables, *report, *options)
        executions = json.loads((workshop / "report.json").read_text())["run"]["executions"]
        return [(each["item"]["name"], each["response"]["code"]) for each in executions]

    assert [code for _, code in send("--folder", "First steps")] == [201, 200, 201, 200, 201, 200, 200]
    (post,) = connection.exec_driver_sql("SELECT title, email FROM posts JOIN users ON users.id = owner_id").all()
    assert tuple(post) == ("My first post", "newman@example.com")
    # All requests in their order; after the account has deleted itself they are refused. The collection's own test
    # fails newman if the server does.
    codes = dict(send())
    assert len(codes) > 90
    assert [name for name, code in codes.items() if code == 422 and "picture" not in name] == []


def test_locust_finds_no_failure(
    python_bin: Path, connection: Connection, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    load = ("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "15s", "--host", start_server().url)

    run(python_bin / "locust", "-f", ROOT / "bench" / "locustfile.py", *load, "--csv", tmp_path / "load", cwd=tmp_path)

    lines = (tmp_path / "load_stats.csv").read_text().splitlines()
    counts = {row["Name"]: (int(row["Request Count"]), int(row["Failure Count"])) for row in csv.DictReader(lines)}
    assert counts.keys() >= {"/users", "/login", "/posts"}
    assert counts["/users"] == (4, 0)
    assert counts["Aggregated"][1] == 0
    assert connection.exec_driver_sql("SELECT count(*) FROM users").one() == (4,)


def test_a_client_in_python_is_typed_in_strict_mode(python_bin: Path, tmp_path: Path) -> None:
    document, client = ROOT / "openapi.json", tmp_path / "client"
    # Of other types than JSON and text it leaves responses out, except for those that its settings declare as files.
    files, settings = ("application/atom+xml", "application/zip", "image/webp"), tmp_path / "settings.json"
    settings.write_text(json.dumps({"content_type_overrides": dict.fromkeys(files, "application/octet-stream")}))
    generate = (python_bin / "openapi-python-client", "generate", "--fail-on-warning", "--config", settings)
    run(*generate, "--path", document, "--output-path", client, cwd=tmp_path, path=python_bin)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache")
    run(*mypy, "--python-executable", python_bin / "python", PYTHON_CLIENT, cwd=client)
    program = f"from {PYTHON_CLIENT}.models import Role, Sort, VoteDirection; print([*Role], [*Sort], [*VoteDirection])"
    assert "VoteDirection.VOTE: 1" in run(python_bin / "python", "-c", program, cwd=client)
    for path in client.rglob("*.py"):
        assert not re.search(r"\bVALUE_\d", path.read_text()), path


# A refresh token that is used twice would end the session, and one of the requests would fail.
RUN = """
require('./built/guide.js').main(process.argv[2]).then(async (client) => {
  client.tokens.access_token = 'expired';
  await Promise.all([1, 2, 3, 4, 5].map(() => client.json('/users/me')));
  await client.json('/users/me');
});
"""


def test_the_guide_to_building_a_client_compiles_in_strict_mode_and_prints_what_it_says(
    workshop: Path, start_server: Callable[..., Server]
) -> None:
    guide = (ROOT / "docs" / "building-a-client.md").read_text()
    folder = workshop / "guide"
    folder.mkdir()
    shutil.copy(workshop / "openapi.json", folder)
    (command,) = re.findall(r"^npx (openapi-typescript .*)$", guide, re.MULTILINE)
    run(*f"{workshop}/node_modules/.bin/{command}".split(), cwd=folder)
    blocks = re.findall(r"^```ts\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (folder / "guide.ts").write_text("\n".join([*blocks, "export { main };\n"]))
    (folder / "package.json").write_text('{"type": "commonjs"}')
    (folder / "run.js").write_text(RUN)
    options = "--strict --noUnusedLocals --target es2022 --lib es2022,dom,dom.iterable --module commonjs --outDir built"
    run(workshop / "node_modules" / ".bin" / "tsc", *options.split(), "guide.ts", cwd=folder)

    printed = run("node", "--experimental-websocket", "run.js", start_server().url, cwd=folder)

    (expected,) = re.findall(r"^```text\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert printed == expected
