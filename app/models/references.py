"""Foreign keys of tables that are not ours. An adopted database may have some."""

from sqlalchemy.exc import DBAPIError

from app.models.base import Base

# SQLSTATE foreign_key_violation and restrict_violation. ON DELETE RESTRICT raises the second since PostgreSQL 18.
VIOLATIONS = ("23503", "23001")


def own_foreign_keys() -> list[str]:
    """Return the names of our foreign keys."""
    return [str(key.name) for table in Base.metadata.tables.values() for key in table.foreign_key_constraints]


def broken_reference(error: DBAPIError) -> str | None:
    """Return the constraint and its table if a foreign key that is not ours forbids a deletion; else None."""
    if getattr(error.orig, "pgcode", None) not in VIOLATIONS:
        return None
    diagnosis = getattr(error.orig, "diag", None)
    name = getattr(diagnosis, "constraint_name", None)
    if name in own_foreign_keys():
        return None
    return f"{name} of {getattr(diagnosis, 'table_name', None)}"
