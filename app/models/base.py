"""What all tables share: names of constraints, the key type, the clock."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Dialect, Identity, MetaData, text
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator

LARGEST_KEY = 2**63 - 1


def possible_key(number: int) -> int | None:
    """The number if a row can have it as its key, else None, which compares equal to no row.

    Keys begin at 1. An out-of-range number is never replaced by another one: an adopted database may have a row 0.
    """
    return number if 0 < number <= LARGEST_KEY else None


class Key(TypeDecorator[int]):
    """A bigint key. Asking for one that cannot exist finds nothing, instead of failing as out of range.

    In a statement such a key is NULL, with which no comparison is true: 0 is no start for `>`, and no value for `!=`.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else possible_key(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(referred_table_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map: ClassVar[Any] = {int: Key, datetime: DateTime(timezone=True)}


PrimaryKey = Annotated[int, mapped_column(Key, Identity(), primary_key=True)]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=text("now()"))]
