"""Benchmark entries: contestant, load and data size, in groups whose entries run in turn."""

from dataclasses import dataclass, replace
from typing import Literal

OURS = "ours"
# In the order of the report. Those of pgbench are no servers; load.py runs them.
SERVERS = {
    OURS: "this application",
    "constant": "constant body, no database",
    "go_pgx": "Go net/http + pgx",
    "fastify_pg": "Fastify + node-postgres",
    "asyncpg_raw": "FastAPI + raw asyncpg",
    "orm_sync": "idiomatic sync ORM",
    "tutorial": "the tutorial's shape",
}
PGBENCH = {
    "pgbench_simple": "pgbench, that statement, simple protocol",
    "pgbench_prepared": "pgbench, that statement, prepared",
}
TITLES = {**SERVERS, **PGBENCH}

SizeName = Literal["S", "L"]


@dataclass(frozen=True)
class Size:
    """Number of rows in a data set."""

    users: int
    posts: int
    votes: int
    follows: int

    @property
    def database(self) -> str:
        return f"bench_{self.posts}_{self.votes}"


SIZES: dict[SizeName, Size] = {
    "S": Size(2_000, 10_000, 100_000, 60_000),
    "L": Size(100_000, 1_000_000, 10_000_000, 3_000_000),
}

LoadName = Literal[
    "page",
    "post",
    "deep",
    "poll",
    "vote",
    "hot_vote",
    "comment_vote",
    "page_calm",
    "page_during_logins",
    "distinct",
    "authors",
    "top-distinct",
    "search",
    "tag",
    "home",
    "thread",
    "thread-large",
    "thread-replies",
    "browse",
]

LOADS: dict[LoadName, str] = {
    "page": "a page of ten posts",
    "post": "one post",
    "deep": "page 1 000, by cursor",
    "poll": "a page that has not changed (If-None-Match)",
    "vote": "votes, spread over posts",
    "hot_vote": "votes, all on one post",
    "comment_vote": "votes, spread over comments",
    "page_calm": "a page, without logins",
    "page_during_logins": "a page, while 50 clients log in",
    "distinct": "distinct pages, by skip and cursor",
    "authors": "distinct pages of single authors",
    "top-distinct": "distinct pages of the best posts",
    "search": "searches: rare, common, phrase",
    "tag": "distinct pages of tags",
    "home": "home pages of readers who follow about 100",
    "thread": "ten comments of threads of about ten",
    "thread-large": "ten comments of the largest threads",
    "thread-replies": "the largest threads with replies",
    "browse": "a site's mix of reads and votes",
}
CONNECTIONS = 64
LOGIN_CONNECTIONS = 50
# Fewer connections than elsewhere: with 64, the cores are busy even without logins, which would hide hashing.
CALM_CONNECTIONS = 16


@dataclass(frozen=True)
class Entry:
    """One line of the measurements."""

    load: LoadName
    contestant: str = OURS
    size: SizeName = "L"
    connections: int = CONNECTIONS

    @property
    def key(self) -> str:
        """The name in results."""
        return f"{self.load} {self.size} {self.connections} {self.contestant}"


HTTP = (OURS, "constant", "go_pgx", "fastify_pg", "asyncpg_raw", "orm_sync", "tutorial")
# `constant` and the tutorial are left out where they cannot do a load: they have no cursors and no other orders.
WITH_SESSIONS = (OURS, "go_pgx", "fastify_pg", "asyncpg_raw", "orm_sync")
PREPARED = (OURS, "go_pgx", "fastify_pg", "asyncpg_raw")
VOTING = (*WITH_SESSIONS, "tutorial")

GROUPS: dict[str, list[Entry]] = {
    # This application's two sizes run next to each other, because growth is their ratio and the machine drifts.
    "page": [
        Entry("page", OURS, "S"),
        *(Entry("page", name, "L") for name in HTTP),
        *(Entry("page", name, "S") for name in HTTP[1:]),
    ],
    "connections": [Entry("page", name, "L", connections) for connections in (1, 4, 16, 128) for name in HTTP],
    "post": [Entry("post", OURS, "S"), *(Entry("post", name) for name in WITH_SESSIONS)],
    "deep": [Entry("deep", OURS, "L"), Entry("deep", OURS, "S")],
    "poll": [Entry("poll"), Entry("page")],
    "vote": [
        Entry("vote", OURS, "S"),
        *(Entry("vote", name) for name in (*VOTING, *PGBENCH)),
        *(Entry("hot_vote", name) for name in (*VOTING, *PGBENCH)),
        Entry("comment_vote"),
    ],
    "distinct": [Entry("distinct", name) for name in WITH_SESSIONS],
    "authors": [Entry("authors", name) for name in WITH_SESSIONS],
    "top-distinct": [Entry("top-distinct", name) for name in WITH_SESSIONS],
    "search": [Entry("search", name) for name in WITH_SESSIONS],
    "tag": [Entry("tag", name) for name in PREPARED],
    "home": [Entry("home", name) for name in (OURS, "asyncpg_raw")],
    "thread": [Entry("thread"), Entry("thread-large"), Entry("thread-replies")],
    "browse": [Entry("browse", name) for name in WITH_SESSIONS],
    "login": [
        Entry("page_calm", connections=CALM_CONNECTIONS),
        Entry("page_during_logins", connections=CALM_CONNECTIONS),
    ],
}
# Measured without a load generator.
OTHERS = ("start", "buffers")


def chosen(group: str, *, contestants: frozenset[str] | None, sizes: tuple[SizeName, ...]) -> list[Entry]:
    """Return the group's entries for these contestants.

    If only one size exists, all use it.
    """
    entries = [
        entry if entry.size in sizes else replace(entry, size=sizes[0])
        for entry in GROUPS[group]
        if contestants is None or entry.contestant in contestants
    ]
    return list(dict.fromkeys(entries))
