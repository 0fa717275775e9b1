"""Growth in blocks: how many the application's statements touch in either data set.

The statements come from the server's log while it answers one request of each kind. They run again under
EXPLAIN (ANALYZE, BUFFERS). EXPLAIN omits reads of triggers and foreign keys, so table statistics are read too.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from bench import contestants, data
from bench.data import Dataset
from bench.environment import BenchError
from bench.scenarios import OURS
from bench.scouting import Scouted

LOGGED = re.compile(r"^\S+ \S+ \S+ \[\d+\] LOG:  statement: (.*)$")
COUNTED = ("select", "with", "insert", "update", "delete", "prepare")
BLOCKS_OF_TABLES = """
    SELECT sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)
        + coalesce(toast_blks_hit + toast_blks_read, 0) + coalesce(tidx_blks_hit + tidx_blks_read, 0))::bigint
    FROM pg_statio_user_tables
"""


def touched(dataset: Dataset, scouted: Scouted) -> dict[str, dict[str, int]]:
    """By kind of request: blocks in EXPLAIN, blocks of tables with triggers and constraints, number of statements."""
    dataset.execute(f"ALTER DATABASE {dataset.address.database} SET log_statement = 'all'")
    try:
        with contestants.running(OURS, dataset, workers=1) as server:
            statements = {name: _statements(ask) for name, ask in _requests(server, dataset, scouted).items()}
    finally:
        dataset.execute(f"ALTER DATABASE {dataset.address.database} RESET log_statement")
        dataset.forget_votes_of_runs()
    return {
        name: {
            "explain": _in_explain(dataset, found),
            "tables": _in_tables(dataset, found),
            "statements": len(found),
        }
        for name, found in statements.items()
    }


def _requests(server: contestants.Server, dataset: Dataset, scouted: Scouted) -> dict[str, Callable[[], None]]:
    def get(path: str, token: str) -> None:
        status, _, _ = server.get(path, {"Authorization": f"Bearer {token}"})
        _require(status == 200, path)

    def vote() -> None:
        # The last voter and the last post.
        token = dataset.voters_file.read_text().splitlines()[-1]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps({"post_id": dataset.post_ids[-1], "vote_dir": 1}).encode()
        status, _, _ = server.request("POST", "/vote", headers, body)
        _require(status == 201, "/vote")

    reader = dataset.reader_tokens[0]
    page, post, deep = (file.read_text().splitlines()[0] for file in (scouted.page, scouted.posts, scouted.deep))
    return {
        "page": lambda: get(page, reader),
        "post": lambda: get(post, reader),
        "deep": lambda: get(deep, reader),
        "vote": vote,
    }


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise BenchError(f"{what.partition('?')[0]} returned a wrong status while its statements were recorded")


def _statements(ask: Callable[[], None]) -> list[str]:
    """Return the statements of a request from the server's log, which has the parameters as sent."""
    log = data.FOLDER / "log"
    start = log.stat().st_size
    ask()
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    found: list[str] = []
    for line in lines:
        if match := LOGGED.match(line):
            found.append(match[1])
        elif line.startswith("\t") and found:
            found[-1] += f"\n{line[1:]}"
    return [statement for statement in found if statement.lstrip().lower().startswith(COUNTED)]


def _in_explain(dataset: Dataset, statements: list[str]) -> int:
    total = 0
    with dataset.connection() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")  # As in app/database/engines.py.
        for statement in statements:
            # The first EXECUTE of a prepared statement is sent together with its PREPARE.
            preparation, separator, execution = statement.rpartition("; EXECUTE")
            if separator:
                cursor.execute(preparation)
            explained = f"EXECUTE{execution}" if separator else statement
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {explained}")
            ((((plan,),)),) = cursor.fetchall()
            root: dict[str, Any] = plan["Plan"]
            total += root["Shared Hit Blocks"] + root["Shared Read Blocks"]
        cursor.execute("ROLLBACK")
    return total


def _in_tables(dataset: Dataset, statements: list[str]) -> int:
    ((before,),) = dataset.rows(BLOCKS_OF_TABLES)
    with dataset.connection() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("ROLLBACK")
    ((after,),) = dataset.rows(BLOCKS_OF_TABLES)
    return int(after - before)
