"""The benchmark's arithmetic, and what it reads from its load generators.

That it runs, `make bench-quick` shows.
"""

from pathlib import Path

import pytest

from bench import report, scenarios, table
from bench.measured import Run, parse_pgbench, parse_wrk
from bench.scenarios import Entry

WRK = """Running 5s test @ http://127.0.0.1:34567
  1 threads and 64 connections
{"requests":20000,"microseconds":5000000,"bytes":1000,"bad_statuses":%d,"socket_errors":0,"p50_us":12500,"p99_us":40000}
"""
PGBENCH = """transaction type: script
number of transactions actually processed: 5000
number of failed transactions: 0 (0.000%)
latency average = 12.8 ms
initial connection time = 90.1 ms
tps = 1000.000000 (without initial connection time)
"""


def findings(rates: dict[Entry, list[float]], *, problem: str | None = None) -> report.Findings:
    found = report.Findings()
    for entry, values in rates.items():
        found.add([entry], {entry.key: [Run(rate, 1, 2, 0, 0, 100, 0, problem) for rate in values]})
    return found


def test_answers_and_latencies_are_read_from_wrk() -> None:
    counted = parse_wrk(WRK % 0)
    assert (counted.rate, counted.p50_ms, counted.p99_ms, counted.problem) == (4000, 12.5, 40, None)


def test_a_run_with_wrong_answers_is_no_result() -> None:
    assert parse_wrk(WRK % 3).problem == "3 answers with status 4xx or 5xx"
    assert parse_wrk("unable to connect to 127.0.0.1").problem == "wrk: unable to connect to 127.0.0.1"


def test_pgbench_is_counted_in_statements() -> None:
    assert parse_pgbench(PGBENCH, statements_per_transaction=2).rate == 2000
    assert parse_pgbench("pgbench: error: no", statements_per_transaction=1).problem == "pgbench: pgbench: error: no"


def test_ratios_are_taken_round_by_round() -> None:
    ours, peer = Entry("page"), Entry("page", "orm_sync")
    measured = report.ratio(ours, peer)(findings({ours: [100, 40, 90], peer: [10, 8, 10]}))
    assert measured == report.Spread(median=9, least=5, most=10)


def test_a_failed_run_makes_a_target_unmeasured() -> None:
    ours, peer = Entry("page"), Entry("page", "orm_sync")
    target = report.Target("page", report.ratio(ours, peer), 10, is_least=True)
    assert target.verdict(findings({ours: [100], peer: [10]}))[1] == "ok"
    assert target.verdict(findings({ours: [99], peer: [10]}))[1] == "short"
    assert target.verdict(findings({ours: [100], peer: [10]}, problem="3 answers"))[1] == "not measured"


def test_growth_needs_both_sizes() -> None:
    small, large = Entry("page", size="S"), Entry("page", size="L")
    assert report.growth("page")(findings({small: [120], large: [100]})) == report.Spread(1.2, 1.2, 1.2)
    assert report.growth("page")(findings({small: [120]})) is None


def test_every_target_can_be_measured_by_a_default_run() -> None:
    entries = {entry: [1.0] for group in scenarios.GROUPS.values() for entry in group}
    found = findings(entries)
    found.ready_after_seconds.append(1)
    blocks: dict[str, dict[str, int]] = {load: {"explain": 10, "tables": 10} for load in report.GROWING}
    found.buffers |= {"S": blocks, "L": blocks}
    assert not [target.what for target in report.TARGETS if target.verdict(found)[1] == "not measured"]


def test_peers_say_what_they_are_and_name_a_possible_improvement() -> None:
    folder = Path(__file__).resolve().parents[2] / "bench" / "peers"
    for name in scenarios.VOTING[1:]:
        (path,) = [*folder.glob(f"{name}.py"), *folder.glob(f"{name}/main.go"), *folder.glob(f"{name}/server.js")]
        head, _, _ = path.read_text().partition("import")
        assert "Possible improvement" in head, path


def test_documents_show_the_result_that_is_kept() -> None:
    for path in table.DOCUMENTS:
        shown = table.shown_in(path)
        assert table.in_place(path.read_text(), shown) == path.read_text(), "run: python -m bench.table"
        assert shown in path.read_text()


def test_the_comparison_begins_with_the_load_in_which_a_peer_is_fastest() -> None:
    rates = {
        Entry("page"): [100.0, 90], Entry("page", "go_pgx"): [50.0, 30], Entry("page", "constant"): [900.0, 900],
        Entry("distinct"): [10.0, 10], Entry("distinct", "go_pgx"): [40.0, 20], Entry("vote"): [7.0, 7],
    }  # fmt: skip
    runs = {key: [run.to_json() for run in some] for key, some in findings(rates).runs.items()}

    (first, distinct), (second, page) = report.compared(runs)

    assert (first, second) == ("distinct", "page")
    assert distinct["go_pgx"] == (30, 0.375)
    assert page == {
        "ours": (95, 1), "constant": (900, pytest.approx(0.1055, abs=1e-3)), "go_pgx": (40, 2.5),
    }  # fmt: skip


def test_a_failed_run_is_in_no_comparison() -> None:
    runs = {key: [{"rate": 5.0, "problem": "3 answers"}] for key in (Entry("page").key, Entry("page", "go_pgx").key)}
    assert report.compared(runs) == []
