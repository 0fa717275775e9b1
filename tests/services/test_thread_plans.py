"""The cost of reading a thread: no full scans, and no growth with the thread."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session

from app import models
from app.database.prepared import MAY_PREPARE
from app.models.base import LARGEST_KEY
from app.schemas.page import KeysetPage
from app.security import access_tokens
from app.services import comment
from app.services.comment.thread import Sort
from tests.figures import Figure
from tests.fixtures import Person
from tests.services.test_plans import MAX_GROWTH, Explained, explained, shown
from tests.services.walking import rows

SORTS: tuple[Sort, ...] = ("top", "new", "old")


_GROW = text("""
    WITH parents AS (
        SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS total
        FROM comments WHERE post_id = :post AND depth = :depth - 1
    )
    INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
    SELECT :post, parents.id, :owner, repeat('word ', 20), :depth
    FROM generate_series(1, :count) AS n
    LEFT JOIN parents
        ON place = CAST(floor((SELECT max(total) FROM parents) * power((n % 1000) / 1000.0, 3)) AS bigint)
    WHERE :depth = 0 OR parents.id IS NOT NULL
""")


@dataclass
class LargeThread:
    """A post with many comments, made by sets."""

    engine: Engine
    connection: Connection
    reader: Person
    post_id: int

    def grow(self, count: int) -> None:
        """Add about as many comments: roots, replies to them, and replies to those.

        The oldest have most replies and most votes.
        """
        values = {"post": self.post_id, "owner": self.reader.id}
        # Of an engine without the application's time limits. Where autovacuum met the table while it was tiny, foreign
        # keys would read all of it for each new row.
        engine = create_engine(
            self.connection.engine.url,
            connect_args={"options": "-c enable_seqscan=off"},
            isolation_level="AUTOCOMMIT",
        )
        with engine.connect() as connection:
            for depth, share in enumerate((0.3, 0.4, 0.3)):
                connection.execute(_GROW, {**values, "depth": depth, "count": int(share * count)})
            connection.execute(text("UPDATE comment_stats SET votes = 1000000 - comment_id"))
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
        self.connection.execute(text("DISCARD PLANS"))

    def read(self, query: comment.ThreadQuery) -> "Cost":
        token = access_tokens.verify(self.reader.token)
        with explained(self.engine) as plans:
            (thread,) = comment.read(self.connection, [comment.ThreadRequest(token, query)])
        assert isinstance(thread, comment.Thread)
        assert thread.next_cursor is not None
        return Cost(plans, thread.json.count(b'"post_id":'))

    def requests(self) -> dict[str, Callable[[], "Cost"]]:
        """Return functions that explain each kind of read, by its name."""
        (parent,) = rows(self.connection, "SELECT comment_id FROM comment_stats ORDER BY replies DESC, 1 LIMIT 1")
        (middle,) = rows(self.connection, "SELECT min(id) + (max(id) - min(id)) / 5 FROM comments WHERE depth = 0")
        found: dict[str, Callable[[], Cost]] = {}
        for sort in SORTS:
            found |= {
                f"first page of {sort}": self._reading(sort, None, None),
                f"later page of {sort}": self._reading(sort, None, (1_000_000 - middle, middle)),
                f"replies by {sort}": self._reading(sort, parent, None),
            }
        return found | {"one author's comments": self._list}

    def _reading(self, sort: Sort, parent: int | None, position: tuple[int, int] | None) -> Callable[[], "Cost"]:
        return lambda: self.read(comment.ThreadQuery(self.post_id, parent, sort, 20, 4, position))

    def _list(self) -> "Cost":
        with Session(self.connection) as session:
            user = session.get_one(models.User, self.reader.id)
            with explained(self.engine) as plans:
                body, _ = comment.list_of_user(session, user, user.id, KeysetPage("", 20, 0, LARGEST_KEY))
        return Cost(plans, body.count(b'"post_id":'))


@dataclass
class Cost:
    """The plans of a read, and the number of comments that it returned."""

    plans: list[Explained]
    comments: int

    @property
    def buffers(self) -> int:
        return sum(plan.buffer_count for plan in self.plans)


@pytest.fixture
def thread(
    database: Engine, connection: Connection, person: Person, make_post: Callable[..., int]
) -> Iterator[LargeThread]:
    # As the connection of the queue is.
    connection.execute(text("SET plan_cache_mode = force_generic_plan"))
    yield LargeThread(database, connection.execution_options(**{MAY_PREPARE: True}), person, make_post(person))
    connection.execute(text("RESET plan_cache_mode"))
    connection.execute(text("TRUNCATE users, posts CASCADE"))


@pytest.mark.slow
def test_ten_times_the_comments_cost_a_thread_no_more_buffers(thread: LargeThread, figure: Figure) -> None:
    def measured() -> dict[str, Cost]:
        for explain in thread.requests().values():  # At first a server process also reads the catalogues.
            explain()
        return {name: explain() for name, explain in thread.requests().items()}

    thread.grow(10_000)
    small = measured()
    thread.grow(90_000)
    large = measured()

    grown = {}
    for name, before in small.items():
        after = large[name]
        figure(f"{name}: {before.buffers} blocks for {before.comments}, {after.buffers} for {after.comments} comments")
        # The other tables have a row each.
        read_through = set().union(*(plan.tables_read_through & {"comments", "comment_stats"} for plan in after.plans))
        # Where more than that, then for no other reason than that the indexes are one level deeper.
        allowed = MAX_GROWTH * before.buffers * after.comments / before.comments
        if read_through or after.buffers > allowed + sum(plan.index_lookup_count for plan in after.plans):
            grown[name] = (before.buffers, after.buffers, read_through, shown(after.plans))
    assert not grown, "\n\n".join(f"{name}: {found[:3]}\n{found[3]}" for name, found in grown.items())
