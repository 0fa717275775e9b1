"""A pytest plugin (`-p`): stop each test function at its first failure; write what failed or was skipped, and why.

Only failures of the test itself count: where a mutant breaks a fixture, that proves nothing.
"""

import json
import os
from pathlib import Path

import pytest

from tests.mutants.mutant import function_of

REPORT = "MUTANT_REPORT"
_failures: dict[str, str] = {}
_skips: dict[str, str] = {}
_passed: set[str] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if function_of(item.nodeid) in _failures:
        pytest.skip("it has failed already")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = function_of(report.nodeid)
    if report.skipped:
        _skips.setdefault(name, str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))
    elif report.when == "call" and report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        _failures.setdefault(name, str(crash.message if crash else report.longrepr))
    elif report.when == "call":
        _passed.add(name)


def pytest_sessionfinish() -> None:
    skipped = {name: why for name, why in _skips.items() if name not in _failures and name not in _passed}
    Path(os.environ[REPORT]).write_text(json.dumps({"failures": _failures, "skipped": skipped}))
