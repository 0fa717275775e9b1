"""Columns: add missing ones, convert types, fill NULLs.

Required columns that the API does not fill become nullable.
"""

import re

from sqlalchemy import text

from app.adoption.plan import Findings, Plan, counted
from app.adoption.shape import quoted
from app.adoption.target import FIELDS, INTEGERS, MISSING_TABLES, TYPES, Field


def complete(found: Findings, plan: Plan, time_zone: str) -> None:
    """Add missing tables and columns, and convert columns to the tutorial's types."""
    if "users" not in found.tables:
        plan.do("create table users", MISSING_TABLES["users"])
    for table in found.tables:
        for field in FIELDS[table]:
            if field.name in found.columns[table]:
                _convert(found, plan, table, field, time_zone)
                _fill(found, plan, table, field)
            elif field.may_be_missing:
                _add(plan, table, field)
        _allow_new_rows(found, plan, table)
    for table in ("users", "posts"):
        if found.has(table, "id") and found.columns[table]["id"].type in INTEGERS:
            _number(found, plan, table)


def _add(plan: Plan, table: str, field: Field) -> None:
    column = f"{field.name} {TYPES[field.kind]}"
    if field.fill is None:  # A post's owner, which is set later.
        plan.do(f"add column {table}.{field.name}", f"ALTER TABLE {table} ADD {column}")
        return
    statements = [f"ALTER TABLE {table} ADD {column} NOT NULL DEFAULT {field.fill}"]
    if field.default is None:
        statements.append(f"ALTER TABLE {table} ALTER {field.name} DROP DEFAULT")
    plan.do(f"add column {table}.{field.name}", *statements)


def _convert(found: Findings, plan: Plan, table: str, field: Field, time_zone: str) -> None:
    column = found.columns[table][field.name]
    theirs = f"{found.tables[table].name}.{column.name}"
    using = _conversion(field, column.type, time_zone)
    if using is None and column.type == "uuid":
        plan.refuse(
            f"{theirs} is uuid, and the API's ids are integers, as the tutorial's are: convert the keys"
            ' with the SQL of docs/adopting.md ("UUID keys")'
        )
    elif using is None:
        wanted = "an integer" if field.kind == "key" else f"a {TYPES[field.kind]}"
        plan.refuse(f"{theirs} is {column.type}, and cannot be taken for {wanted}: convert it")
    elif using:
        if field.kind == "flag" and (other := found.count(table, f"{quoted(column.name)} NOT IN (0, 1)")):
            plan.refuse(
                f"{theirs} is neither 0 nor 1 in {counted(other, 'row')}, and would be lost: make it 1 where the post"
                " is for all, else 0, and keep what it was in another column"
            )
        plan.do(
            f"convert {table}.{field.name} from {column.type} to {TYPES[field.kind]}"
            + (f", read as {time_zone}" if "ZONE" in using else ""),
            f"ALTER TABLE {table} ALTER {field.name} DROP DEFAULT,"
            f" ALTER {field.name} TYPE {TYPES[field.kind]} USING {using}",
        )
    if field.kind != "key" and (column.default != field.default or using):
        default = f"SET DEFAULT {field.default}" if field.default else "DROP DEFAULT"
        if field.default or column.default:
            plan.do(f"{default.lower()} on {table}.{field.name}", f"ALTER TABLE {table} ALTER {field.name} {default}")


def _conversion(field: Field, found: str, time_zone: str) -> str | None:
    """Return SQL for the type conversion.

    It is "" if none is needed, and None if the conversion is impossible.
    """
    if found == TYPES[field.kind] or (field.kind == "key" and found in INTEGERS):
        return ""
    if field.kind == "text" and (found in {"text", "citext"} or re.match(r"character( varying)?\(", found)):
        return f"{field.name}::varchar"
    if field.kind == "flag" and found in INTEGERS:
        return f"{field.name} <> 0"
    if field.kind == "time" and found.startswith("timestamp") and found.endswith("with time zone"):
        return field.name
    if field.kind == "time" and (found.startswith("timestamp") or found == "date"):
        return f"{field.name}::timestamp AT TIME ZONE '{time_zone}'"
    return None


def _fill(found: Findings, plan: Plan, table: str, field: Field) -> None:
    """Fill NULLs in columns that are NOT NULL in the tutorial.

    Missing owners and voters are handled later.
    """
    column = found.columns[table][field.name]
    if column.is_required or field.refers_to is not None:
        return
    if empty := found.count(table, f"{quoted(column.name)} IS NULL"):
        if field.fill is None:
            plan.refuse(
                f"{found.tables[table].name}.{column.name} is NULL in {counted(empty, 'row')}: give them one, or delete"
                " them"
            )
            return
        plan.do(
            f"fill {table}.{field.name} of {counted(empty, 'row')} with {field.fill}",
            f"UPDATE {table} SET {field.name} = {field.fill} WHERE {field.name} IS NULL",
        )
    plan.do(f"require {table}.{field.name}", f"ALTER TABLE {table} ALTER {field.name} SET NOT NULL")


def _allow_new_rows(found: Findings, plan: Plan, table: str) -> None:
    """Make other required columns nullable, because the API does not fill them."""
    ours = {column.name for column in found.columns[table].values()}
    theirs = [column for column in found.tables[table].columns.values() if column.name not in ours]
    if theirs:
        plan.note(
            f"columns of {found.tables[table].name} that stay but are no longer used:"
            f" {', '.join(column.name for column in theirs)}"
        )
    key = found.tables[table].primary_key
    for column in theirs:
        if column.is_unfilled and not (key and column.name in key.columns):
            name = found.former.get((table, column.name), column.name)
            plan.do(
                f"let {table}.{name} be empty in new rows", f"ALTER TABLE {table} ALTER {quoted(name)} DROP NOT NULL"
            )


def _number(found: Findings, plan: Plan, table: str) -> None:
    """Number ids by `{table}_id_seq`.

    The sequence is above every id, as the next migration requires.
    """
    column = found.columns[table]["id"]
    sequence = f"{table}_id_seq"
    own = found.connection.scalar(
        text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": found.name(table), "column": column.name}
    )
    used = own if column.is_identity else column.sequence
    last, is_called = 1, False
    if used is not None:
        last, is_called = found.connection.execute(text(f"SELECT last_value, is_called FROM {used}")).one()
    highest = found.connection.scalar(text(f"SELECT max({quoted(column.name)}) FROM {found.name(table)}")) or 0
    is_behind = highest > last or (highest == last and not is_called)
    found.next_id[table] = highest + 1 if is_behind else last + is_called
    if used is None or column.is_identity or own is None:
        last, is_called = (highest, True) if is_behind else (last, is_called)
        plan.do(
            f"take the numbers of {table} from {sequence}",
            f"ALTER TABLE {table} ALTER id DROP {'IDENTITY' if column.is_identity else 'DEFAULT'}",
            *([f"ALTER SEQUENCE {own} OWNED BY NONE"] if own and not column.is_identity else []),
            f"CREATE SEQUENCE {sequence} OWNED BY {table}.id",
            f"SELECT setval('{sequence}', {last}, {str(is_called).lower()})",
            f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('{sequence}')",
        )
        return
    if own.split(".")[-1] != sequence:
        plan.do(f"rename sequence {own} to {sequence}", f"ALTER SEQUENCE {own} RENAME TO {sequence}")
    if is_behind:
        plan.do(f"move {sequence} past {highest}", f"ALTER SEQUENCE {sequence} RESTART WITH {highest + 1}")
