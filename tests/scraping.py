"""Scrape /metrics as Prometheus does."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
TOKEN = "a-token-for-prometheus-of-these-tests"
TIMEOUT_SECONDS = 60


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sample(samples: Samples, name: str, **labels: str) -> float:
    """The value of one sample; 0 where nothing was counted yet."""
    return samples.get((name, frozenset(labels.items())), 0)


def scrape(url: str) -> Samples:
    """On a connection of its own, so that any worker may be the one to answer."""
    response = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=TIMEOUT_SECONDS)
    assert response.status_code == 200, response.text
    return samples_of(response.text)


def scrapes(url: str) -> Iterator[Samples]:
    """Scrape until patience ends: requests are counted a moment after they were answered."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        yield scrape(url)
        time.sleep(0.05)
    raise AssertionError("what was waited for did not come")


def processes_below(process_id: int) -> list[int]:
    """The worker processes that a server started, from Linux's /proc."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return [int(child) for child in children if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text()]
