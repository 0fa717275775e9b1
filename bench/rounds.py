"""Rounds: each entry of a group runs once per round, so that drift of the machine affects all entries alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import psutil

from bench import load
from bench.contestants import Server, running
from bench.data import PASSWORD, Dataset
from bench.measured import Counted, Run, parse_pgbench, parse_wrk
from bench.scenarios import LOGIN_CONNECTIONS, PGBENCH, Entry, SizeName
from bench.scouting import Scouted, require_agreement

# Logins start before the page requests and end after them. Their last responses come late.
LOGIN_LEAD_SECONDS = 2
IDLE_WITHIN_SECONDS = 60


Report = Callable[[Entry, int, Run], None]


def play(
    entries: list[Entry],
    datasets: dict[SizeName, Dataset],
    scouted: dict[SizeName, Scouted],
    *,
    rounds: int,
    seconds: float,
    report: Report,
) -> dict[str, list[Run]]:
    """Start the contestants, warm up every entry and run the rounds.

    Call `report` after each run.
    """
    found: dict[str, list[Run]] = {entry.key: [] for entry in entries}
    with _servers(entries, datasets, scouted) as servers:
        for entry in entries:  # Warm up pools, prepared statements and caches before the first round.
            _measure(entry, servers, datasets[entry.size], scouted[entry.size], seconds=min(seconds, 2))
        for number in range(rounds):
            # Each round starts with a different entry, so that its order differs from that of the others.
            first = number * len(entries) // rounds
            for entry in [*entries[first:], *entries[:first]]:
                run = _measure(entry, servers, datasets[entry.size], scouted[entry.size], seconds=seconds)
                found[entry.key].append(run)
                report(entry, number, run)
    return found


@contextmanager
def _servers(
    entries: list[Entry], datasets: dict[SizeName, Dataset], scouted: dict[SizeName, Scouted]
) -> Iterator[dict[tuple[str, SizeName], Server]]:
    with ExitStack() as stack:
        servers: dict[tuple[str, SizeName], Server] = {}
        for entry in entries:
            place = (entry.contestant, entry.size)
            if entry.contestant not in PGBENCH and place not in servers:
                servers[place] = stack.enter_context(running(entry.contestant, datasets[entry.size]))
                loads = {other.load for other in entries if (other.contestant, other.size) == place}
                require_agreement(servers[place], datasets[entry.size], scouted[entry.size], loads)
        yield servers


def _measure(
    entry: Entry,
    servers: dict[tuple[str, SizeName], Server],
    dataset: Dataset,
    scouted: Scouted,
    *,
    seconds: float,
) -> Run:
    server = servers.get((entry.contestant, entry.size))
    is_voting = entry.load in ("vote", "hot_vote", "comment_vote", "browse")
    postmaster = load.postmaster_of(dataset)
    problems: list[str] = []
    logins = _logins(server, dataset, seconds, problems) if entry.load == "page_during_logins" else nullcontext()
    with logins:
        counted, cost = _run(entry, server, dataset, scouted, postmaster, seconds)
    problem = counted.problem or next(iter(problems), None)
    if is_voting:
        if server is not None:
            _wait_until_idle(server, dataset)
        counted, problem = _compared_with_rows(entry, counted, dataset, scouted)
        dataset.forget_votes_of_runs()
    requests = max(1, counted.requests)
    return Run(
        counted.rate,
        counted.p50_ms,
        counted.p99_ms,
        cost.server * 1000 / requests,
        cost.postgres * 1000 / requests,
        server.worker_megabytes if server else None,
        cost.others / cost.wall,
        problem,
    )


def _run(
    entry: Entry,
    server: Server | None,
    dataset: Dataset,
    scouted: Scouted,
    postmaster: psutil.Process,
    seconds: float,
) -> tuple[Counted, load.Cost]:
    meter = load.Meter(server, postmaster)
    if server is None:
        on_one_post = entry.load == "hot_vote"
        protocol = entry.contestant.removeprefix("pgbench_")
        process = load.start_pgbench(
            dataset, protocol, on_one_post=on_one_post, connections=entry.connections, seconds=seconds
        )
        output = load.finish(process, seconds)
        return parse_pgbench(output, statements_per_transaction=2 if on_one_post else 1), meter.cost()
    script, arguments = scouted.request(entry.load)
    process = load.start_wrk(server, script, arguments, connections=entry.connections, seconds=seconds)
    return parse_wrk(load.finish(process, seconds)), meter.cost()


@contextmanager
def _logins(server: Server | None, dataset: Dataset, seconds: float, problems: list[str]) -> Iterator[None]:
    """Let 50 clients log in repeatedly during the block.

    Append to `problems` if logins fail.
    """
    assert server is not None
    total = seconds + 2 * LOGIN_LEAD_SECONDS
    process = load.start_wrk(
        server, "login", [str(dataset.emails_file), PASSWORD], connections=LOGIN_CONNECTIONS, seconds=total
    )
    try:
        time.sleep(LOGIN_LEAD_SECONDS)
        yield
    finally:
        logins = parse_wrk(load.finish(process, total))
    if logins.problem:
        problems.append(f"logins: {logins.problem}")
    _wait_until_idle(server, dataset)


def _wait_until_idle(server: Server, dataset: Dataset) -> None:
    """Wait until the server is idle: it finishes votes and password hashes after its clients have disconnected."""
    deadline = time.monotonic() + IDLE_WITHIN_SECONDS
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        before = load.spent(server.processes)
        time.sleep(0.1)
        ((working,),) = dataset.rows(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state <> 'idle' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        quiet = quiet + 1 if working == 0 and load.spent(server.processes) - before < 0.02 else 0


def _compared_with_rows(
    entry: Entry, counted: Counted, dataset: Dataset, scouted: Scouted
) -> tuple[Counted, str | None]:
    """Compare responses with rows, and vote counts with votes.

    Random pairs of pgbench may name a draft or an existing vote, so only its rows count.
    """
    problem = counted.problem
    on_comments = entry.load == "comment_vote"
    if miscounted := dataset.miscounted_comments() if on_comments else dataset.miscounted_posts():
        what = "comments" if on_comments else "posts"
        problem = f"{miscounted} {what} have counts that differ from their rows"
    if entry.load == "hot_vote":
        return counted, problem
    rows = dataset.count_votes_of_runs("comment_votes" if on_comments else "votes")
    if entry.contestant in PGBENCH:
        return Counted(rows, counted.seconds, None, None), problem
    # Requests in flight at the end may have been carried out without an answer.
    answered, sent = (
        scouted.votes_among(entry.load, requests)
        for requests in (counted.requests, counted.requests + entry.connections)
    )
    if not answered - entry.connections * (entry.load == "browse") <= rows <= sent:
        problem = problem or f"{answered} votes were answered, and {rows} are in the table"
    return counted, problem
