"""`TUTORIAL_DEFAULTS=true`: the suite in the tutorial's style passes whole, with this one setting."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sqlalchemy import Engine

from tests.conftest import ROOT
from tests.contract import test_tutorial_client

SUITE = Path(test_tutorial_client.__file__)
# The conftest of this directory tree would take the setting away, and clone another database.
PLUGINS = ("-p", "tests.fixtures", "-p", "tests.contract.conftest", "-p", "no:cacheprovider")


@pytest.mark.slow
def test_the_suite_of_the_tutorial_passes_whole_with_one_setting(database: Engine, tmp_path: Path) -> None:
    """Only tests marked `fails_with_our_defaults` may fail with our defaults."""
    database.dispose()
    report = tmp_path / "report.xml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"-c{ROOT / 'pyproject.toml'}", f"--rootdir={ROOT}", "--noconftest",
         *PLUGINS, f"--junitxml={report}", str(SUITE)],
        cwd=tmp_path,  # Where there is no .env.
        env=environment | {"TUTORIAL_DEFAULTS": "true", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it.
    assert len(cases) >= 50
    assert [case.get("name") for case in cases if len(case)] == []  # Neither failed, nor skipped, nor expected to fail.
    ran = {str(case.get("name")).partition("[")[0] for case in cases}
    assert ran == {name for name in vars(test_tutorial_client) if name.startswith("test_")} - {"test_user"}
