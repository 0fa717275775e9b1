"""Shared parts of all tables: constraint names, the key type, types for times."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Dialect, Identity, MetaData, text
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator

LARGEST_KEY = 2**63 - 1


def possible_key(number: int) -> int | None:
    """Return the number if it is a possible key, else None, which equals no key.

    Keys begin at 1. An out-of-range number is never replaced by another number, because an adopted database may have a
    row 0.
    """
    return number if 0 < number <= LARGEST_KEY else None


class Key(TypeDecorator[int]):
    """A bigint key.

    A lookup with an impossible key finds nothing, and raises no range error. Statements get NULL for such a key, and no
    comparison with NULL is true. So do not use 0 as a start for `>`, or as a value for `!=`.
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
