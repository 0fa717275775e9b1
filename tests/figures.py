"""Print at the end what long tests measured, also in xdist's workers, whose output is not shown."""

import sys
from collections.abc import Callable

import pytest

Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Report a figure that the test proved: `figure("20,000 cases, none answered 5xx")`."""

    def tell(words: str) -> None:
        record_property("figure", words)
        sys.stdout.write(f"{words}\n")  # Where it is not the end yet, and in what a failure shows.

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        words
        for report in terminalreporter.stats.get("passed", [])
        for name, words in report.user_properties
        if name == "figure" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("figures")
        for words in figures:
            terminalreporter.write_line(words)
