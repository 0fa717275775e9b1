"""What happened to accounts, as rows that their owners can read and lines that operators can.

A row is written in the transaction of what it tells of; so it is there exactly when that happened. A line is one JSON
object, in which whatever a client sent is escaped: nothing that anybody types begins a line of its own.
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
# Rows that wait to be written apart from their requests; past it, the log alone has the event.
MAX_WAITING = 1000

Detail = str | int | None


def hold(db: Session, user_id: int) -> bool:
    """Whether the account is there, which stays so until the transaction ends.

    To be called before other rows of an account are locked of which `record` will then tell: its row refers to the
    account, and who deletes or changes that has it locked, and waits for those rows.
    """
    account = select(User.id).where(User.id == user_id).with_for_update(read=True, key_share=True)
    return db.scalar(account) is not None


def record(db: Session | Connection | None, event: Event, user_id: int | None, **details: Detail) -> None:
    """Tell of an event, with the request's id, address and user agent (`app.observability.request_context`), and
    details without secrets.

    With `db` a row is added to its transaction; None for what has no account, or was rolled back: only the log has it.
    The line is written once a session has committed, and not at all if it is rolled back; else at once.
    """
    line = _line(event, user_id, details)
    if db is not None and user_id is not None:
        db.execute(_row(event, user_id, details))
    if isinstance(db, Session):
        db.info.setdefault("audit", []).append((event, line))
    else:
        _say(event, line)


def record_apart(event: Event, user_id: int | None, **details: Detail) -> None:
    """Tell of an event whose request fails, such as a wrong password: at once in the log, and a row a moment later.

    A thread of its own writes the row, and does the same work when there is no account (None): how long the request
    takes tells nobody whether there is one. Rows that still wait when the process ends are in the log only.
    """
    record(None, event, user_id, **details)
    try:
        _waiting().put_nowait(partial(copy_context().run, _write, event, user_id, details))
    except Full:
        logger.warning("too many events wait; one is in the log only")


@lru_cache
def _waiting() -> Queue[Callable[[], None]]:
    """What the thread has to write; a daemon, so that a database that does not answer holds up no end."""
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
    except Exception as error:  # Whatever it is, the next event is written.
        logger.warning("an event is in the log only: %s", type(error).__name__)


def _row(event: Event, user_id: int, details: dict[str, Detail]) -> Insert:
    """The row, if the account is (still) there; deleting it waits until the transaction ends."""
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
    told = {
        "event": event,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user_id": user_id,
        "request_id": request_context.request_id.get(),
        "address": _plain(request_context.client_address.get()),
        "user_agent": _plain(request_context.user_agent.get()),
        **{name: _plain(value) for name, value in details.items()},
    }
    return json.dumps(told)  # In ASCII: what looks like the end of a line, to whatever program, is escaped too.


def _plain(value: Detail) -> Detail:
    """What PostgreSQL can keep, of a bounded length."""
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
