"""A pytest plugin (`-p`): stop each test function at its first failure; write what failed, and why.

Only what fails when it is called counts: where a mutant breaks what tests stand on, that proves nothing.
"""

import json
import os
from pathlib import Path

import pytest

from tests.mutants.mutant import function_of

REPORT = "MUTANT_REPORT"
_failures: dict[str, str] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if function_of(item.nodeid) in _failures:
        pytest.skip("it has failed already")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        _failures.setdefault(function_of(report.nodeid), str(crash.message if crash else report.longrepr))


def pytest_sessionfinish() -> None:
    Path(os.environ[REPORT]).write_text(json.dumps(_failures))
