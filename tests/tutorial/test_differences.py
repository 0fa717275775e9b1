"""The table of docs/differences.md is complete and true.

The same requests go to our application and to one of the tutorial's contract. What differs between the answers is what
the table names: each row is shown by a request, and each difference is explained by a row.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.tutorial.answers import Answer, Comparison, answers_of_ours, answers_of_the_reference, compare
from tests.tutorial.requests import REQUESTS

TABLE = (ROOT / "docs" / "differences.md").read_text()
ROWS = dict(re.findall(r"^\| (?!about )([^|-][^|]*?) \| ([^|]*) \| [^|]*\|$", TABLE, re.MULTILINE))
MORE_FIELDS = "more fields"
# The settings that the document names for clients of the tutorial.
TUTORIAL_SETTINGS = {"TUTORIAL_DEFAULTS": "true"}
# Rows that no single request shows.
NOT_SHOWN = {
    "limits of requests": "takes 601 requests; tests/middleware/test_rate_limit.py",
    "own constraints": "takes a constraint of the operator's own; tests/contract/test_foreign_constraints.py",
    "secret key": "a setting, refused at start; tests/test_config.py",
    "times": "compared as times; pydantic 1 wrote them in another form than the reference does",
}


@dataclass(frozen=True)
class Answers:
    """The answers to all requests: of the tutorial's contract, and of ours with and without TUTORIAL_DEFAULTS."""

    reference: dict[str, Answer]
    tutorial_defaults: dict[str, Answer]
    defaults: dict[str, Answer]


def collect_answers(folder: Path) -> Answers:
    with ThreadPoolExecutor(2) as pool:
        tutorial_defaults = pool.submit(answers_of_ours, folder, **TUTORIAL_SETTINGS)
        # The blocklist is on in production. Its other settings are about TLS and proxies.
        defaults = pool.submit(answers_of_ours, folder, PASSWORD_BLOCKLIST_ENABLED="true")
        return Answers(answers_of_the_reference(), tutorial_defaults.result(), defaults.result())


def unexplained(row: str | None, found: Comparison) -> str | None:
    """Return what is wrong with the row that a request names, or None."""
    if row is None and found.differences:
        return f"no row is named for: {found.differences[0]} ({len(found.differences)} differences)"
    if row is not None and not found.differences:
        return f"nothing differs: remove {row!r} here, and from docs/differences.md if no other request needs it"
    return None


def test_only_what_the_table_names_differs(tmp_path: Path) -> None:
    """One test, because its three applications take about nine seconds of CPU."""
    answers = collect_answers(tmp_path)
    problems: list[str] = []
    additional_fields: set[str] = set()

    for request in REQUESTS:
        name = request.name
        if (status := max(answers.tutorial_defaults[name].status, answers.defaults[name].status)) >= 500:
            problems.append(f"{name}: our answer is {status}")
        to_the_tutorial = compare(answers.tutorial_defaults[name], answers.reference[name])
        between_settings = compare(answers.defaults[name], answers.tutorial_defaults[name])
        additional_fields |= to_the_tutorial.additional_fields | between_settings.additional_fields
        for what, row, found in (
            ("with TUTORIAL_DEFAULTS", request.row, to_the_tutorial),
            ("with our defaults", request.default_row, between_settings),
        ):
            if problem := unexplained(row, found):
                problems.append(f"{what}, {name}: {problem}")

    assert not problems, "\n".join(problems)
    assert set(re.findall(r"`(\w+)`", ROWS[MORE_FIELDS])) == additional_fields


def test_every_row_of_the_table_is_shown_by_a_request() -> None:
    shown = {row for request in REQUESTS for row in (request.row, request.default_row) if row}

    assert len({request.name for request in REQUESTS}) == len(REQUESTS) >= 60
    assert not shown & NOT_SHOWN.keys()
    assert ROWS.keys() == shown | NOT_SHOWN.keys() | {MORE_FIELDS}
