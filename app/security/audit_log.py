"""Audit log: security events as rows for owners and log lines for operators.

A row is written in the transaction of its event, so it exists exactly when the event happened. A line is one JSON
object. Everything that a client sent is escaped, so that it cannot begin a log line of its own.
"""

import json
import logging
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime
from functools import lru_cache, partial
from queue import Full, Queue
from threading import Thread

from sqlalchemy import ColumnElement, Connection, Insert, insert, literal, select
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.database.sessions import writing
from app.models import SecurityEvent, User
from app.models.security_event import Event
from app.observability import metrics, request_context

logger = logging.getLogger("app.audit")

MAX_CHARACTERS = 300
# Maximum rows that wait to be written apart from their requests. Past it, an event is in the log only.
MAX_WAITING = 1000

Detail = str | int | None


def lock_account(db: Session, user_id: int) -> bool:
    """Lock the account until the transaction ends. Returns whether it exists.

    Call this before locking other rows of the account, if `record` follows. The row of `record` refers to the account.
    A request that deletes or changes the account locks it first and then waits for those rows: a deadlock otherwise.
    """
    account = select(User.id).where(User.id == user_id).with_for_update(read=True, key_share=True)
    return db.scalar(account) is not None


def record(db: Session | Connection | None, event: Event, user_id: int | None, **details: Detail) -> None:
    """Record an event with the request's id, address and user agent.

    Details must not contain secrets. The request's data come from `app.observability.request_context`. With `db`, a row
    is added to its transaction. Pass None for events without an account, or of a transaction that was rolled back: they
    are in the log only. With a session, the line is written after the commit, and not at all after a rollback.
    Otherwise it is written at once.
    """
    line = _line(event, user_id, details)
    if db is not None and user_id is not None:
        db.execute(_row(event, user_id, details))
    if isinstance(db, Session):
        db.info.setdefault("audit", []).append((event, line))
    else:
        _say(event, line)


def record_apart(event: Event, user_id: int | None, **details: Detail) -> None:
    """Record an event whose request fails, such as a wrong password.

    The line is logged at once. A separate thread writes the row a moment later. It does the same work without an
    account (None), so that the response time does not reveal whether there is one. Rows that still wait when the
    process ends are in the log only.
    """
    record(None, event, user_id, **details)
    try:
        _waiting().put_nowait(partial(copy_context().run, _write, event, user_id, details))
    except Full:
        logger.warning("too many audit events are waiting: one is in the log only")


@lru_cache
def _waiting() -> Queue[Callable[[], None]]:
    """The queue of the writing thread.

    It is a daemon, so that a silent database does not delay shutdown.
    """
    waiting: Queue[Callable[[], None]] = Queue(MAX_WAITING)
    Thread(target=_write_all, args=(waiting,), name="audit", daemon=True).start()
    return waiting


def _write_all(waiting: Queue[Callable[[], None]]) -> None:
    while True:
        waiting.get()()
        waiting.task_done()


def _write(event: Event, user_id: int | None, details: dict[str, Detail]) -> None:
    try:
        with writing() as connection:
            connection.execute(_row(event, user_id or 0, details))
    except Exception as error:  # After any error, continue with the next event.
        logger.warning("failed to store an audit event, it is in the log only: %s", type(error).__name__)


def _row(event: Event, user_id: int, details: dict[str, Detail]) -> Insert:
    """The row, if the account still exists.

    Its deletion waits until the transaction ends.
    """
    values: dict[str, ColumnElement[object]] = {
        "event": literal(str(event)),
        "address": literal(_plain(request_context.client_address.get())),
        "user_agent": literal(_plain(request_context.user_agent.get())),
        "request_id": literal(request_context.request_id.get()),
        "details": literal({name: _plain(value) for name, value in details.items()}, JSONB),
    }
    owner = select(User.id, *values.values()).where(User.id == user_id).with_for_update(read=True, key_share=True)
    return insert(SecurityEvent).from_select(["user_id", *values], owner)


def _line(event: Event, user_id: int | None, details: dict[str, Detail]) -> str:
    fields = {
        "event": event,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user_id": user_id,
        "request_id": request_context.request_id.get(),
        "address": _plain(request_context.client_address.get()),
        "user_agent": _plain(request_context.user_agent.get()),
        **{name: _plain(value) for name, value in details.items()},
    }
    return json.dumps(fields)  # In ASCII, so that everything that any program takes for a line break is escaped.


def _plain(value: Detail) -> Detail:
    """The value without NUL and lone surrogates, and of bounded length.

    PostgreSQL can store neither.
    """
    if not isinstance(value, str):
        return value
    return value.replace("\0", "")[:MAX_CHARACTERS].encode(errors="replace").decode()


def _say(event: Event, line: str) -> None:
    metrics.security_event(event)
    logger.info("%s", line)


@sqlalchemy_event.listens_for(Session, "after_commit")
def _tell(session: Session) -> None:
    for event, line in session.info.pop("audit", ()):
        _say(event, line)


@sqlalchemy_event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop("audit", None)
