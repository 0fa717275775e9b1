"""Experiment: posts per second with the event log, and without the statement that writes it.

Both servers run on the small data set of the benchmark, in turn.

    python -m bench.experiments.events
"""

import statistics
import tempfile
from pathlib import Path

import psutil

from bench import data, load
from bench.contestants import Server, running
from bench.data import Dataset
from bench.environment import ROOT, BenchError, prepare
from bench.measured import parse_wrk
from bench.scenarios import OURS

ROUNDS, SECONDS, CONNECTIONS = 6, 4, 32
# Python imports it when it starts, also in the workers.
_WITHOUT_EVENTS = """
from app.services import post

post._log = lambda *_: None
"""
_FORGET = ("DELETE FROM posts WHERE title = 'benchmark'", "TRUNCATE events", "VACUUM (ANALYZE)", "CHECKPOINT")


def main() -> None:
    load.require_programs()
    prepare()
    with data.server() as url, tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(_WITHOUT_EVENTS)
        dataset = data.open_dataset(url, "S")
        dataset.execute(*_FORGET)
        print(f"load average before: {psutil.getloadavg()[0]:.1f}")
        try:
            with running(OURS, dataset) as with_log, running(OURS, dataset, PYTHONPATH=f"{folder}:{ROOT}") as without:
                _compare(dataset, with_log, without)
        finally:
            dataset.execute(*_FORGET)


def _compare(dataset: Dataset, with_log: Server, without: Server) -> None:
    for server, is_logged in ((with_log, True), (without, False)):
        rate, _ = _measure(dataset, server)
        ((events,),) = dataset.rows("SELECT count(*) FROM events")
        if (events > CONNECTIONS) != is_logged:  # Requests in flight when a measurement ended may write later.
            raise BenchError(f"{rate:.0f} posts/s wrote {events} events")
        dataset.execute(*_FORGET)
    rates, costs = [], []
    for number in range(ROUNDS):
        found = {}
        for server in (with_log, without)[:: 1 if number % 2 else -1]:
            found[server.port] = _measure(dataset, server)
            dataset.execute(*_FORGET)
        (rate, cpu), (rate_without, cpu_without) = found[with_log.port], found[without.port]
        rates.append((rate, rate_without))
        costs.append((cpu, cpu_without))
    for what, pairs in (("posts/s", rates), ("ms of CPU for a post", costs)):
        ratios = [logged / unlogged for logged, unlogged in pairs]
        logged, unlogged = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{what}: {logged:,.2f} with the event log, {unlogged:,.2f} without: "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )


def _measure(dataset: Dataset, server: Server) -> tuple[float, float]:
    """Return the posts per second, and the milliseconds of CPU that the server and PostgreSQL took for each."""
    meter = load.Meter(server, load.postmaster_of(dataset))
    process = load.start_wrk(server, "write", [str(dataset.readers_file)], connections=CONNECTIONS, seconds=SECONDS)
    counted = parse_wrk(load.finish(process, SECONDS))
    if counted.problem is not None:
        raise BenchError(counted.problem)
    cost = meter.cost()
    return counted.rate, 1000 * (cost.server + cost.postgres) / counted.requests


if __name__ == "__main__":
    main()
