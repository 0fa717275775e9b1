"""Programs that the project does not install.

A test that needs a missing one is skipped.

`REQUIRE_PROGRAMS` names those that CI installs, separated by spaces. If one of them is missing, the test fails instead.
"""

import os
import shutil
from typing import NoReturn

import pytest

# Alternatives of Chromium are found in this order; `REQUIRE_PROGRAMS` has the first name.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KNOWN = {
    *("bash", "curl", "etcd", "git", "haproxy", "nginx", "node", "npm", "openssl", "pg_dump", "pgbouncer"),
    *("prometheus", "promtool", "setpriv", "slowhttptest", "sqlmap", "systemd-analyze", *CHROMIUM),
}


def find_program(*names: str) -> str:
    """Return the path of the first of these programs that is installed.

    Skip or fail the test if none is.
    """
    assert KNOWN.issuperset(names), f"add {names} to KNOWN"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    # Debian keeps daemons in folders that only root's PATH has.
    folders += [f"{folder.removesuffix('bin')}sbin" for folder in folders if folder.endswith("/bin")]
    for name in names:
        if path := shutil.which(name, path=os.pathsep.join(folders)):
            return path
    return missing(names[0])


def missing(program: str, reason: str = "") -> NoReturn:
    """Skip the running test, or fail it if `REQUIRE_PROGRAMS` has the program."""
    reason = reason or f"{program} is not installed"
    if program in os.environ.get("REQUIRE_PROGRAMS", "").split():
        pytest.fail(f"{reason}, and REQUIRE_PROGRAMS names it", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the programs that the test's `needs` marks name, before its fixtures start servers."""
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            find_program(program)
