"""Constraints that are not ours, which adopted databases have on any table."""

from functools import cache

from sqlalchemy.exc import DBAPIError

from app.models.base import Base

# SQLSTATE foreign_key_violation and restrict_violation. ON DELETE RESTRICT raises the second since PostgreSQL 18.
VIOLATIONS = ("23503", "23001")
NOT_NULL_VIOLATION = "23502"
# SQLSTATE class 23: integrity constraint violation.
INTEGRITY = "23"


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
    if getattr(error.orig, "pgcode", None) not in VIOLATIONS:
        return None
    return broken_constraint(error)


def broken_constraint(error: DBAPIError) -> str | None:
    """Return the violated constraint and its table if it is not ours, else None.

    NOT NULL has no name, so its column decides: a column of our models is ours.
    """
    state = getattr(error.orig, "pgcode", None) or ""
    diagnosis = getattr(error.orig, "diag", None)
    table = getattr(diagnosis, "table_name", None)
    if state == NOT_NULL_VIOLATION and (column := getattr(diagnosis, "column_name", None)):
        ours = Base.metadata.tables.get(table or "")
        return None if ours is not None and column in ours.columns else f"NOT NULL of {table}.{column}"
    # The constraint of a domain type has a name, but no table: our models use no such type.
    name = getattr(diagnosis, "constraint_name", None)
    if not state.startswith(INTEGRITY) or name is None or (table, name) in own_constraints():
        return None
    return f"{name} of {table}"
