"""Query log: the database statements of a request, with their durations.

The statements carry the request id.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event

from app.observability import request_context

MAX_CHARACTERS = 200
_SAFE_IN_A_COMMENT = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Query:
    """A statement without its parameters, because clients sent them."""

    text: str
    began_at: float
    # None: it failed or has not finished.
    seconds: float | None = None

    def __str__(self) -> str:
        text = " ".join(self.text[: 2 * MAX_CHARACTERS].split())
        shown = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"
        return f"{'failed' if self.seconds is None else f'{self.seconds * 1000:.1f}ms'} {shown}"


@dataclass(slots=True)
class Batch:
    """A batch that the request was in, and the request's wait for it."""

    queue: str
    size: int
    waited_seconds: float
    queries: list[Query]

    def __str__(self) -> str:
        statements = "; ".join(map(str, self.queries))
        return f"waited {self.waited_seconds * 1000:.1f}ms for a batch of {self.size} in {self.queue}: {statements}"


@dataclass(slots=True)
class QueryLog:
    """The statements of one request or one batch."""

    queries: list[Query] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the request waited for its statements and batches."""
        own = sum(query.seconds or 0 for query in self.queries)
        return own + sum(batch.waited_seconds for batch in self.batches)

    @property
    def statement_count(self) -> int:
        """Number of statements, with those of the batches."""
        return len(self.queries) + sum(len(batch.queries) for batch in self.batches)

    def __str__(self) -> str:
        return "; ".join(map(str, (*self.batches, *self.queries))) or "no statements"


_current: ContextVar[QueryLog | None] = ContextVar("query_log", default=None)


def begin() -> QueryLog:
    """Start recording the statements of this context, including those of its threads."""
    log = QueryLog()
    _current.set(log)
    return log


def current() -> QueryLog | None:
    """The query log of this context; None if nothing is recorded."""
    return _current.get()


@contextmanager
def recording() -> Iterator[list[Query]]:
    """Record the statements of a block that serves several requests."""
    token = _current.set(log := QueryLog())
    try:
        yield log.queries
    finally:
        _current.reset(token)


def watch(engine: Engine, *, has_comments: bool) -> None:
    """Record the statements of the engine. With comments, they carry the request id.

    So entries of pg_stat_activity and PostgreSQL's log can be joined with our log. The comment comes first, because
    pg_stat_activity truncates long statements. It is added after SQLAlchemy's cache lookup, so that the caches work.
    """

    def before(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if (log := _current.get()) is not None:
            log.queries.append(Query(statement, time.perf_counter()))
        request_id = request_context.request_id.get() if has_comments else None
        if request_id is not None and _SAFE_IN_A_COMMENT.fullmatch(request_id):
            statement = f"/* request_id={request_id} */ {statement}"
        return statement, parameters

    def after(*_: Any) -> None:
        if (log := _current.get()) is not None and log.queries:
            latest = log.queries[-1]
            latest.seconds = time.perf_counter() - latest.began_at

    event.listen(engine, "before_cursor_execute", before, retval=True)
    event.listen(engine, "after_cursor_execute", after)
