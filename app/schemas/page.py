"""Pages of lists that are sorted by id, or by time and id.

The lists of posts have their own (`services/feed/pages.py`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import MalformedCursor
from app.schemas import cursor as cursors

AnySelect = TypeVar("AnySelect", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True, slots=True)
class KeysetPage:
    """The page of a list that a request asks for.

    `last_id` is the last id of the page before it, and `last_time` its time, if the list is sorted by time.
    """

    list_name: str
    limit: int
    skip: int
    last_id: int | None
    last_time: datetime | None = None

    def select(self, rows: AnySelect, key: InstrumentedAttribute[int], *, is_descending: bool = False) -> AnySelect:
        """Narrow the statement to the page and one row more.

        That row tells that there is a next page.
        """
        if self.last_id is not None:
            rows = rows.where(key < self.last_id if is_descending else key > self.last_id)
        return rows.order_by(key.desc() if is_descending else key).limit(self.limit + 1).offset(self.skip)

    def select_newest(
        self,
        rows: AnySelect,
        time: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
        key: InstrumentedAttribute[int],
    ) -> AnySelect:
        """Narrow the statement to the page, newest first, and one row more."""
        if self.last_id is not None:
            rows = rows.where(tuple_(time, key) < tuple_(literal(self.last_time), literal(self.last_id)))
        return rows.order_by(time.desc(), key.desc()).limit(self.limit + 1)

    def cursor_after(self, last_id: int, last_time: datetime | None = None) -> str:
        """Return the cursor of the page that follows this id, or this time and id."""
        return cursors.sign([self.list_name, last_id, *([] if last_time is None else [last_time.isoformat()])])


def page_of(list_name: str, *, limit: int, cursor: str | None, skip: int = 0) -> KeysetPage:
    """Return the page that the parameters of a request name. A cursor replaces `skip`.

    Raises `MalformedCursor`, also for cursors of other lists.
    """
    if not cursor:
        return KeysetPage(list_name, limit, skip, None)
    match cursors.verify(cursor):
        case [str() as made_for, int() as last_id] if made_for == list_name:
            return KeysetPage(list_name, limit, 0, last_id)
        case [str() as made_for, int() as last_id, str() as last_time] if made_for == list_name:
            return KeysetPage(list_name, limit, 0, last_id, datetime.fromisoformat(last_time))
    raise MalformedCursor
