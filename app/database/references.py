"""Constraints that are not ours, which adopted databases have on any table."""

from functools import cache

from psycopg2 import errorcodes as codes
from sqlalchemy.exc import DBAPIError

from app.database.sqlstate import named_by, sqlstate_of
from app.models.base import Base

# ON DELETE RESTRICT raises the second since PostgreSQL 18.
_VIOLATIONS = (codes.FOREIGN_KEY_VIOLATION, codes.RESTRICT_VIOLATION)


def own_foreign_keys() -> list[str]:
    """Return the names of our foreign keys."""
    return [str(key.name) for table in Base.metadata.tables.values() for key in table.foreign_key_constraints]


@cache
def own_constraints() -> frozenset[tuple[str, str]]:
    """Return our constraints and unique indexes as (table, name), like in errors."""
    return frozenset(
        (table.name, str(name))
        for table in Base.metadata.tables.values()
        for name in [*(rule.name for rule in table.constraints), *(index.name for index in table.indexes)]
    )


def broken_reference(error: DBAPIError) -> str | None:
    """Return the foreign key that forbids a deletion, with its table, if not ours.

    Otherwise return None.
    """
    return broken_constraint(error) if sqlstate_of(error) in _VIOLATIONS else None


def broken_constraint(error: DBAPIError) -> str | None:
    """Return the violated constraint and its table if it is not ours, else None.

    NOT NULL has no name, so its column decides: a column of our models is ours.
    """
    state = sqlstate_of(error) or ""
    table, column, name = named_by(error)
    if state == codes.NOT_NULL_VIOLATION and column:
        ours = Base.metadata.tables.get(table or "")
        return None if ours is not None and column in ours.columns else f"NOT NULL of {table}.{column}"
    # The constraint of a domain type has a name, but no table: our models use no such type.
    if not state.startswith(codes.CLASS_INTEGRITY_CONSTRAINT_VIOLATION) or name is None:
        return None
    if (table, name) in own_constraints():
        return None
    return f"{name} of {table}"
