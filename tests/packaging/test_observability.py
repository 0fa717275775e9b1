"""The dashboard, the alerts and docs/observability.md name the metrics that /metrics has: all of them, and no other."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.models.security_event import Event
from app.observability import metrics
from tests.conftest import ROOT
from tests.fixtures import Person

DOCS = (ROOT / "docs" / "observability.md").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
(GROUP,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
EXPRESSIONS = {
    **{f"panel {panel['title']} {place}": target["expr"]
       for panel in DASHBOARD["panels"] for place, target in enumerate(panel["targets"])},
    **{f"alert {rule['alert']}": rule["expr"] for rule in GROUP["rules"]},
}  # fmt: skip
# PromQL's own words.
FUNCTIONS = {
    "sum", "max", "min", "by", "rate", "increase", "delta", "changes", "histogram_quantile", "topk", "time", "absent",
    "and", "or", "unless", "on", "offset",
}  # fmt: skip
# Prometheus adds these to what it scrapes.
SCRAPED = {"up", "job", "instance"}

Exposed = dict[str, set[str]]


@pytest.fixture
def exposed(client: TestClient, person: Person) -> Exposed:  # noqa: ARG001 - on empty tables.
    """The names of all samples on /metrics after some use, each with the names of its labels."""
    from app.main import app

    local = TestClient(app, client=("127.0.0.1", 50000))
    local.get("/posts", headers=person.headers)
    metrics.security_event(Event.SIGNED_IN)
    metrics.limit_reached("sign_in_of_account")
    metrics.replica_batch("replica")
    metrics.database_check(is_up=True)
    metrics.outbox(0, 0, 0)
    metrics.TaskRuns("cleanup")
    metrics.webhook_attempt(is_success=True)
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(local.get("/metrics").text)
        for sample in family.samples
    }


def names_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Return each metric of an expression with the labels that it, or a sum of it, uses."""
    grouped = {label.strip() for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(",")}
    bare = re.sub(r"by \([^)]*\)|\[[^]]*\]", "", re.sub(r'"[^"]*"', '""', expression))
    for name, matchers in re.findall(r"\b([a-z_]+)\b(?!\s*\()(?:\{([^}]*)\})?(?=[^=!~\"]|$)", bare):
        if name not in FUNCTIONS:
            yield name, grouped | set(re.findall(r"(\w+)\s*(?:=|!)", matchers))


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_metrics_of_the_dashboard_and_alerts_exist(exposed: Exposed, where: str) -> None:
    found = list(names_in(EXPRESSIONS[where]))

    assert found
    for name, labels in found:
        assert name in exposed or name in SCRAPED, f"there is no metric {name}"
        assert labels <= exposed.get(name, set()) | SCRAPED, f"{name} has no such label"


def test_the_dashboard_draws_every_metric(exposed: Exposed) -> None:
    drawn = {
        family(name) for where in EXPRESSIONS if where.startswith("panel") for name, _ in names_in(EXPRESSIONS[where])
    }

    assert {family(name) for name in exposed} - drawn == {"process_virtual_memory_bytes", "process_max_fds"}


def test_the_table_lists_every_metric_with_its_labels_and_no_other(exposed: Exposed) -> None:
    listed = {
        name: set(re.findall("`([a-z]+)`", labels))
        for name, labels in re.findall(r"^\| `([a-z_]+)` \| (`[^|]+|) \|", DOCS, re.MULTILINE)
    }

    assert listed == {family(name): labels - {"le"} for name, labels in exposed.items() if not name.endswith("_bucket")}


def test_every_alert_says_how_urgent_it_is_and_what_to_look_at() -> None:
    explained = dict(re.findall(r"^\| `(SocialPosts\w+)` \| (.+) \|$", DOCS, re.MULTILINE))

    assert list(explained) == [rule["alert"] for rule in GROUP["rules"]]
    for rule in GROUP["rules"]:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    cells = [
        (x, panel["gridPos"]["y"])
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
    ]

    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in panels}) == len(panels)


def family(name: str) -> str:
    """The metric that a sample belongs to, as the table names it."""
    return re.sub(r"_(bucket|sum|count)$", "", name)
