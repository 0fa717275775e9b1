"""Experiment: votes for posts, for comments, and for comments without their posts.

One connection casts batches on a data set of the benchmark: S, or the one named. Then clients vote through HTTP. Each
run begins with vacuumed tables, as those of the benchmark do.

    python -m bench.experiments.comment_votes [S|L]
"""

import statistics
import sys
import time
from typing import NamedTuple, cast

import psutil
from sqlalchemy import Connection, create_engine

from app.database.prepared import MAY_PREPARE, PreparedStatement
from app.services import vote
from bench import data, load, loads
from bench.contestants import running
from bench.data import Dataset
from bench.environment import BenchError, prepare
from bench.measured import parse_wrk
from bench.scenarios import OURS, SizeName

BATCH, BATCHES, ROUNDS = 32, 60, 9
HTTP_ROUNDS, SECONDS, CONNECTIONS = 5, 4, 64
# The condition of the application without the post and its owner. So the difference is the cost of looking them up.
_WITHOUT_POSTS = vote._cast_statement(
    items="comments",
    key="comment_id",
    counts="comment_stats",
    votes="comment_votes",
    is_votable="removal_reason IS NULL",
)


class Cost(NamedTuple):
    """The cost of one vote: microseconds of time and of CPU of the server process, bytes of WAL, full-page images."""

    microseconds: float
    cpu_microseconds: float
    wal_bytes: float
    page_images: float


def main() -> None:
    prepare()
    with data.server() as url:
        dataset = data.open_dataset(url, cast("SizeName", sys.argv[1] if len(sys.argv) > 1 else "S"))
        comments = [int(comment_id) for comment_id in loads.comments(dataset)]
        cases = {
            "posts": (vote._CAST_FOR_POSTS, dataset.post_ids),
            "comments": (vote._CAST_FOR_COMMENTS, comments),
            "comments, their posts not looked up": (_WITHOUT_POSTS, comments),
        }
        engine = create_engine(
            dataset.address,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": "-c plan_cache_mode=force_generic_plan"},
            execution_options={MAY_PREPARE: True},
        )
        found: dict[str, list[Cost]] = {name: [] for name in cases}
        with engine.connect() as connection:
            names = [*cases]
            for number in range(ROUNDS):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    dataset.forget_votes_of_runs()
                    found[name].append(_cast(connection, dataset, *cases[name]))
        dataset.forget_votes_of_runs()
        print(f"load average after: {psutil.getloadavg()[0]:.1f}; a vote costs, as the median of {ROUNDS} rounds:")
        for name, costs in found.items():
            median = Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))
            print(
                f"{name}: {median.microseconds:.0f} us, {median.cpu_microseconds:.0f} us of CPU, "
                f"{median.wal_bytes:.0f} bytes of WAL, {median.page_images:.2f} full-page images"
            )
        _compare_through_http(dataset, comments)


def _cast(connection: Connection, dataset: Dataset, statement: PreparedStatement, ids: list[int]) -> Cost:
    process = psutil.Process(connection.connection.driver_connection.info.backend_pid)  # type: ignore[union-attr]
    wal, cpu, began_at = _wal(connection), sum(process.cpu_times()[:2]), time.perf_counter()
    for batch in range(BATCHES):
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        voters = [dataset.voters[number % len(dataset.voters)] for number in numbers]
        statement.execute(
            connection,
            {
                "numbers": [*range(BATCH)],
                "session_ids": [voter.session_id for voter in voters],
                "user_ids": [voter.user_id for voter in voters],
                "item_ids": [ids[number % len(ids)] for number in numbers],
                "is_for": [True] * BATCH,
            },
        )
    seconds, cpu_seconds = time.perf_counter() - began_at, sum(process.cpu_times()[:2]) - cpu
    written = [after - before for before, after in zip(wal, _wal(connection), strict=True)]
    votes = BATCH * BATCHES
    return Cost(1e6 * seconds / votes, 1e6 * cpu_seconds / votes, written[0] / votes, written[1] / votes)


def _wal(connection: Connection) -> tuple[float, float]:
    connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
    statement = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, wal_fpi FROM pg_stat_wal"
    position, images = connection.exec_driver_sql(statement).one()
    return float(position), float(images)


def _compare_through_http(dataset: Dataset, comments: list[int]) -> None:
    voters, ids = str(dataset.voters_file), dataset.write("comments-voted", [str(each) for each in comments])
    arguments = {"posts": [voters, str(dataset.posts_file)], "comments": [voters, str(ids), "comments"]}
    rates, cpus = [], []
    with running(OURS, dataset) as server:

        def measure(name: str) -> tuple[float, float]:
            meter = load.Meter(server, load.postmaster_of(dataset))
            process = load.start_wrk(server, "vote", arguments[name], connections=CONNECTIONS, seconds=SECONDS)
            counted = parse_wrk(load.finish(process, SECONDS))
            if counted.problem is not None:
                raise BenchError(counted.problem)
            cost = meter.cost()
            dataset.forget_votes_of_runs()
            return counted.rate, cost.postgres / counted.requests

        for name in arguments:
            measure(name)  # Warms it up.
        for number in range(HTTP_ROUNDS):
            found = {name: measure(name) for name in [*arguments][:: 1 if number % 2 else -1]}
            (rate, cpu), (rate_of_posts, cpu_of_posts) = found["comments"], found["posts"]
            rates.append(rate / rate_of_posts)
            cpus.append(cpu / cpu_of_posts)
    for what, ratios in (("votes/s", rates), ("CPU of PostgreSQL for a vote", cpus)):
        print(f"{what}, comments / posts: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")


if __name__ == "__main__":
    main()
