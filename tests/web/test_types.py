"""TypeScript finds no mistake in the modules of the web client, against the shapes of openapi.json."""

import shutil
from pathlib import Path

import pytest

from app.routers.web import WEB_FOLDER
from tests.clients.test_generated_clients import run
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_typescript_finds_nothing(npm_folder: Path) -> None:
    shutil.copytree(WEB_FOLDER, npm_folder / "web")
    programs, types = npm_folder / "node_modules" / ".bin", npm_folder / "web" / "api-types.d.ts"
    run(programs / "openapi-typescript", ROOT / "openapi.json", "--output", types, cwd=npm_folder)

    assert run(programs / "tsc", "--project", ".", cwd=npm_folder) == ""
