"""Primary keys, unique e-mail address and foreign keys, named as in the tutorial."""

from sqlalchemy import text

from app.adoption.plan import Findings, Plan, counted
from app.adoption.shape import Constraint, quoted
from app.adoption.target import FIELDS, MISSING_TABLES, PRIMARY_KEYS, REFERENCES, taken_relations

# Unique indexes on the column alone that belong to no constraint. The first can become one.
_UNIQUE_INDEXES = text("""
    SELECT relname::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_am ON pg_am.oid = relam AND amname = 'btree'
    JOIN pg_attribute ON attrelid = indrelid AND attname = :column
    WHERE indrelid = to_regclass(:table) AND indisunique AND indisvalid AND indpred IS NULL AND indnatts = 1
        AND indkey[0] = attnum AND indoption[0] = 0 AND indcollation[0] = attcollation
        AND (SELECT opcdefault FROM pg_opclass WHERE pg_opclass.oid = indclass[0]) AND NOT EXISTS (
            SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u')
        )
    ORDER BY relname
""")


def replace(found: Findings, plan: Plan) -> None:
    """Rename matching constraints, add missing ones and replace the others."""
    for table, columns in PRIMARY_KEYS.items():
        if all(found.has(table, column) for column in columns):
            _primary_key(found, plan, table, columns)
    if found.has("users", "email"):
        _unique_email(found, plan)
    if "votes" not in found.tables:
        plan.do("create table votes", MISSING_TABLES["votes"])
    for (table, column), name in REFERENCES.items():
        if table in found.tables:
            _foreign_key(found, plan, table, column, name)


def _rename(plan: Plan, table: str, constraint: Constraint, name: str) -> None:
    if constraint.name != name:
        plan.do(
            f"rename constraint {constraint.name} to {name}",
            f"ALTER TABLE {table} RENAME CONSTRAINT {quoted(constraint.name)} TO {name}",
        )


def _primary_key(found: Findings, plan: Plan, table: str, columns: tuple[str, ...]) -> None:
    here = [found.columns[table][column].name for column in columns]
    existing = found.tables[table].primary_key
    name = f"{table}_pkey"
    if existing is not None and sorted(existing.columns) == sorted(here):
        _rename(plan, table, existing, name)
        return
    statements = []
    if existing is not None:
        users = [
            key.table
            for key in found.shape.references_to(found.tables[table].name)
            if key.referred_columns == existing.columns
        ]
        if table != "votes" or users:
            plan.refuse(
                f"the primary key of {found.tables[table].name} is ({', '.join(existing.columns)})"
                + (f", and {', '.join(users)} refers to it" if users else "")
                + f": make it ({', '.join(here)})"
            )
            return
        statements.append(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(existing.name)}")
        # The old key required these columns, and new rows do not fill them.
        theirs = [found.tables[table].columns[name] for name in existing.columns if name not in here]
        statements += [
            f"ALTER TABLE {table} ALTER {quoted(found.former.get((table, column.name), column.name))} DROP NOT NULL"
            for column in theirs
            if column.is_unfilled
        ]
    elif table != "votes":
        key = quoted(here[0])
        repeated = found.connection.scalar(
            text(f"SELECT count({key}) - count(DISTINCT {key}) FROM {found.name(table)}")
        )
        if repeated:
            plan.refuse(
                f"{found.tables[table].name}.{here[0]} is that of an earlier row in {counted(repeated, 'row')}: change"
                " or delete them"
            )
    plan.do(
        f"make ({', '.join(columns)}) the primary key of {table}",
        *statements,
        f"ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({', '.join(columns)})",
    )


def _unique_email(found: Findings, plan: Plan) -> None:
    email = found.columns["users"]["email"].name
    existing = [key for key in found.tables["users"].of_kind("u") if key.columns == (email,)]
    named = next((key for key in existing if key.name == "users_email_key"), next(iter(existing), None))
    names = found.connection.scalars(_UNIQUE_INDEXES, {"table": found.name("users"), "column": email})
    # An index whose name is needed was renamed before, even if it gets that name here.
    indexes = [f"former_{name}" if name in taken_relations() else name for name in names]
    if named is not None:
        _rename(plan, "users", named, "users_email_key")
    elif indexes:
        plan.do(
            f"make the unique index {indexes[0]} the constraint users_email_key",
            f"ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE USING INDEX {quoted(indexes[0])}",
        )
    else:
        plan.do(
            "make e-mail addresses unique", "ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email)"
        )  # fmt: skip
    # They are checked before ours and would hide its more specific error. A foreign key may need one of them.
    needed = {key.referred_columns for key in found.shape.references_to(found.tables["users"].name)}
    others = [key for key in existing if key is not named]
    left = indexes if named is not None else indexes[1:]
    if (others or left) and (email,) not in needed:
        plan.do(
            f"drop {', '.join([*(key.name for key in others), *left])}, because migration 0008 makes addresses unique",
            *(f"ALTER TABLE users DROP CONSTRAINT {quoted(key.name)}" for key in others),
            *(f"DROP INDEX {quoted(name)}" for name in left),
        )


def _foreign_key(found: Findings, plan: Plan, table: str, column: str, name: str) -> None:
    referred = next(field.refers_to for field in FIELDS[table] if field.name == column)
    existing = []
    if found.has(table, column) and referred in found.tables and found.has(referred, "id"):
        here = (found.columns[table][column].name,)
        existing = [key for key in found.tables[table].of_kind("f") if key.columns == here]
        right = [key for key in existing if _is_right(found, key, referred)]
        if right:
            kept = next((key for key in right if key.name == name), right[0])
            others = [key for key in existing if key is not kept]
            if others:
                plan.do(
                    f"leave one foreign key on {table}.{column}",
                    *(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(key.name)}" for key in others),
                )
            _rename(plan, table, kept, name)
            return
    plan.do(
        f"make {table}.{column} refer to {referred}, deleted with it",
        *(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(key.name)}" for key in existing),
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {referred} (id)"
        " ON DELETE CASCADE",
    )


def _is_right(found: Findings, key: Constraint, referred: str) -> bool:
    return (
        key.referred == found.tables[referred].name
        and key.referred_columns == (found.columns[referred]["id"].name,)
        and key.on_delete == "c"
        and key.is_plain
    )
