"""The alerts of deploy/prometheus, run by promtool on series that must trigger them, and on some that must not."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.programs import find_program

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]

pytestmark = pytest.mark.needs("promtool")

# The name of each series, and its samples.
Series = dict[str, str]
SERVER, WORKER = 'job="social-posts", instance="a:8000"', 'job="social-posts-worker", instance="a:8001"'
# In promtool's notation, one sample every 15 s: `1+0x80` is 1 for 20 minutes, `0+1x80` grows by 1 with each sample,
# `_x80` is no sample for 20 minutes.
MINUTE = 4
FOREVER = 80 * MINUTE
# A quiet night: scrapes, but no requests.
QUIET: Series = {
    f"up{{{SERVER}}}": f"1+0x{FOREVER}",
    f"up{{{WORKER}}}": f"1+0x{FOREVER}",
    f"database_up{{{SERVER}}}": f"1+0x{FOREVER}",
    f"database_up{{{WORKER}}}": f"1+0x{FOREVER}",
    f'outgoing_mails{{{SERVER}, state="waiting"}}': f"0+0x{FOREVER}",
    f'outgoing_mails{{{SERVER}, state="given_up"}}': f"0+0x{FOREVER}",
    f"outgoing_mails_oldest_age_seconds{{{SERVER}}}": f"0+0x{FOREVER}",
    f'background_task_runs_total{{{WORKER}, task="cleanup", outcome="succeeded"}}': f"1+0x{FOREVER}",
    f'background_task_runs_total{{{WORKER}, task="cleanup", outcome="failed"}}': f"0+0x{FOREVER}",
    f'process_start_time_seconds{{{SERVER}, worker="0"}}': f"1000+0x{FOREVER}",
}


def requests(status: str, values: str, route: str = "/posts") -> Series:
    return {f'http_requests_total{{{SERVER}, method="GET", route="{route}", status="{status}"}}': values}


def latencies(name: str, labels: str) -> Series:
    """A histogram whose observations all take between 0.5 s and 1 s."""
    return {
        f'{name}_bucket{{{SERVER}, {labels}, le="{bound}"}}': f"0+{count}x{FOREVER}"
        for bound, count in (("0.5", 0), ("1.0", 9), ("+Inf", 9))
    }


def failing_cleanup(succeeded: str) -> Series:
    """A cleanup that fails, and is retried every minute."""
    return {
        f'background_task_runs_total{{{WORKER}, task="cleanup", outcome="failed"}}': "0 0 0 0 " * 5 + "0+0.25x99",
        f'background_task_runs_total{{{WORKER}, task="cleanup", outcome="succeeded"}}': succeeded,
    }


def all_faults() -> Series:
    """The series of all cases in which an alert fires."""
    return {name: values for changes, _, _ in FIRING.values() for name, values in changes.items() if values}


# The difference from a quiet night, the minute, and the only alert that fires then.
FIRING: dict[str, tuple[Series, int, str]] = {
    "server down": ({f"up{{{SERVER}}}": f"1 1 1 1 0+0x{FOREVER}"}, 3, "SocialPostsDown"),
    "missing target": ({f"up{{{SERVER}}}": ""}, 6, "SocialPostsMissing"),
    "a target that went missing": ({f"up{{{SERVER}}}": "1+0x40"}, 22, "SocialPostsMissing"),
    "database down on a quiet night": (
        {f"database_up{{{SERVER}}}": f"1+0x20 0+0x{FOREVER}"}, 7, "SocialPostsDatabaseDown",
    ),
    "database that one of two servers does not reach": (
        {'database_up{job="social-posts", instance="b:8000"}': f"0+0x{FOREVER}"}, 3, "SocialPostsDatabaseDown",
    ),
    "the first 50 errors of a route, between two scrapes": (
        requests("500", f"_x40 50+0x{FOREVER}"), 13, "SocialPostsErrors",
    ),
    "one more error of a route": (requests("500", f"7+0x40 8+0x{FOREVER}"), 13, "SocialPostsErrors"),
    "the first error after a restart": (requests("500", f"7+0x40 _x8 1+0x{FOREVER}"), 15, "SocialPostsErrors"),
    "the first error of a second route": (
        requests("500", f"7+0x{FOREVER}") | requests("500", f"_x40 1+0x{FOREVER}", "/vote"), 13, "SocialPostsErrors",
    ),
    "unavailable": (
        requests("503", f"0+1x{FOREVER}") | requests("200", f"0+9x{FOREVER}"), 5, "SocialPostsUnavailable",
    ),
    "slow pages": (latencies("http_request_duration_seconds", 'route="/posts"'), 8, "SocialPostsSlow"),
    "slow batches": (latencies("batch_wait_seconds", 'queue="votes"'), 8, "SocialPostsBatchQueueSlow"),
    "pool exhausted": (
        {
            f'database_connections_in_use{{{SERVER}, pool="requests"}}': f"8+0x{FOREVER}",
            f'database_pool_size{{{SERVER}, pool="requests"}}': f"8+0x{FOREVER}",
        },
        3, "SocialPostsPoolExhausted",
    ),
    "replica behind": (
        {f'replica_batches_total{{{SERVER}, outcome="behind"}}': f"0+9x{FOREVER}"}, 12, "SocialPostsReplicaUnused",
    ),
    "crashing worker process": (
        {f'process_start_time_seconds{{{SERVER}, worker="0"}}': f"1000+15x{FOREVER}"}, 3, "SocialPostsWorkerRestarts",
    ),
    "guessing": ({f'limits_reached_total{{{SERVER}, limit="x"}}': f"0+30x{FOREVER}"}, 14, "SocialPostsGuessing"),
    "mails that wait": (
        {f"outgoing_mails_oldest_age_seconds{{{SERVER}}}": f"0+15x{FOREVER}"}, 21, "SocialPostsMailsWait",
    ),
    "mails that are given up": (
        {f'outgoing_mails{{{SERVER}, state="given_up"}}': f"2+0x20 2+0.5x20 12+0x{FOREVER}"},
        30, "SocialPostsMailsGivenUp",
    ),
    "cleanup that fails": (failing_cleanup(f"1+0x{FOREVER}"), 15, "SocialPostsTaskFails"),
    "no worker, and servers that leave cleanup to it": (
        dict.fromkeys([name for name in QUIET if WORKER in name], ""), 12, "SocialPostsNoCleanup",
    ),
    "dead worker": ({f"up{{{WORKER}}}": f"1 1 1 1 0+0x{FOREVER}"}, 4, "SocialPostsWorkerDown"),
}  # fmt: skip
# The difference from a quiet night, and the minute, at which no alert fires.
SILENT: dict[str, tuple[Series, int]] = {
    "a quiet night": ({}, 60),
    "series of other jobs": (
        {name.replace('job="social-posts', 'job="shop'): values for name, values in all_faults().items()}, 21,
    ),
    "errors before the first scrape": (requests("500", f"50+0x{FOREVER}"), 4),
    "errors of an hour ago": (requests("500", f"_x40 50+0x{FOREVER}"), 70),
    "errors of the day before, after ten minutes without scrapes": (
        requests("500", f"7+0x40 _x40 7+0x{FOREVER}") | {f"up{{{SERVER}}}": f"1+0x40 0+0x40 1+0x{FOREVER}"}, 23,
    ),
    "a restart of the server, which takes half a minute": ({f"up{{{SERVER}}}": f"1+0x20 0 0 1+0x{FOREVER}"}, 6),
    "a failover of the database, which takes half a minute": (
        {f"database_up{{{SERVER}}}": f"1+0x20 0 0 1+0x{FOREVER}"}, 6,
    ),
    "health checks that fail": (
        requests("503", f"0+1x{FOREVER}", "/readyz") | requests("200", f"0+1x{FOREVER}", "/livez"), 10,
    ),
    "a mail that is sent after two minutes": (
        {f"outgoing_mails_oldest_age_seconds{{{SERVER}}}": f"0+15x8 0+0x{FOREVER}"}, 21,
    ),
    "five mails to addresses that do not exist": (
        {f'outgoing_mails{{{SERVER}, state="given_up"}}': f"0+0x100 4+0x{FOREVER}"}, 30,
    ),
    "a cleanup that fails and succeeds": (failing_cleanup(f"1+0x20 1+0.1x{FOREVER}"), 15),
    "servers that run cleanup, without a worker": (
        {
            **dict.fromkeys([name for name in QUIET if WORKER in name], ""),
            f'background_task_runs_total{{{SERVER}, task="cleanup", outcome="succeeded"}}': f"1+0x{FOREVER}",
        },
        60,
    ),
}  # fmt: skip


def assert_firing(folder: Path, changes: Series, minute: int, *alerts: str) -> None:
    series = {name: values for name, values in (QUIET | changes).items() if values}
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [test]}))
    run = subprocess.run([find_program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("case", FIRING)
def test_an_alert_fires_and_no_other(case: str, tmp_path: Path) -> None:
    assert_firing(tmp_path, *FIRING[case])


@pytest.mark.parametrize("case", SILENT)
def test_no_alert_fires(case: str, tmp_path: Path) -> None:
    assert_firing(tmp_path, *SILENT[case])


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert {alert for _, _, alert in FIRING.values()} == {rule["alert"] for rule in GROUP["rules"]}
