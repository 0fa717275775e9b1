"""Lighthouse rates the front page of a site with content, on phones and desktops."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.test_generated_clients import run
from tests.demo import demo_site
from tests.programs import CHROMIUM, find_program

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

logger = logging.getLogger(__name__)

MIN_SCORE = 0.95
CATEGORIES = ("performance", "accessibility", "best-practices")
# Other work on the machine lowers a measurement, and nothing raises it.
MAX_RUNS = 3


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with demo_site(PUBLIC_READS="true") as url:
        yield url


def scores(npm_folder: Path, url: str, device: str) -> dict[str, float]:
    """The score of each category, and what lost points, from one run of Lighthouse."""
    report = npm_folder / f"{device}.json"
    flags = ["--headless", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    run(
        npm_folder / "node_modules" / ".bin" / "lighthouse",
        url,
        "--quiet",
        "--no-enable-error-reporting",
        f"--only-categories={','.join(CATEGORIES)}",
        "--output=json",
        f"--output-path={report}",
        f"--chrome-flags={' '.join(flags)}",
        *(["--preset=desktop"] if device == "desktop" else []),
        cwd=npm_folder,
    )
    result = json.loads(report.read_text())
    for name, audit in result["audits"].items():
        if audit["score"] is not None and audit["score"] < 1:
            logger.info("%s: %s %s %s", device, name, audit["score"], audit.get("displayValue", ""))
    return {name: result["categories"][name]["score"] for name in CATEGORIES}


@pytest.mark.parametrize("device", ["mobile", "desktop"])
def test_the_front_page_of_a_site_with_content_scores_95_in_each_category(
    npm_folder: Path, site: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROME_PATH", find_program(*CHROMIUM))
    for _ in range(MAX_RUNS):
        found = scores(npm_folder, f"{site}/web/", device)
        logger.info("%s: %s", device, found)
        if min(found.values()) >= MIN_SCORE:
            break

    assert {name: score for name, score in found.items() if score < MIN_SCORE} == {}
