"""The npm packages of package-lock.json beside this file, for tests that need them."""

import shutil
from pathlib import Path

import pytest

from tests.clients.test_generated_clients import install
from tests.programs import find_program

FOLDER = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def npm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed packages. Without Node or the registry, the test is skipped."""
    for program in ("node", "npm"):
        find_program(program)
    folder = tmp_path_factory.mktemp("npm")
    for source in FOLDER.glob("*.json"):
        shutil.copy(source, folder)
    install("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, what="npm")
    return folder
