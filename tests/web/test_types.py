"""TypeScript finds no mistake in the modules of the web client."""

import shutil
from pathlib import Path

import pytest

from app.routers.web import WEB_FOLDER
from tests.clients.test_generated_clients import run

pytestmark = pytest.mark.slow


def test_typescript_finds_nothing(npm_folder: Path) -> None:
    shutil.copytree(WEB_FOLDER, npm_folder / "web")

    assert run(npm_folder / "node_modules" / ".bin" / "tsc", "--project", ".", cwd=npm_folder) == ""
