"""Other constraints that stay on users, posts and votes.

They may reject writes of the API.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.adoption.plan import Findings, Plan
from app.adoption.shape import Column, quoted

# CHECK and EXCLUDE constraints, and unique constraints and indexes. `columns` are all columns in the definition,
# `key_columns` the plain key columns of a unique one.
_RULES = text("""
    SELECT conname AS name, contype::text AS kind, true AS is_constraint, pg_get_constraintdef(oid) AS definition,
        ARRAY(
            SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey)
        ) AS columns,
        '{}'::text[] AS key_columns, false AS is_filtered, false AS has_expressions, false AS is_null_equal,
        pg_get_expr(conbin, conrelid) AS condition
    FROM pg_constraint WHERE conrelid = to_regclass(:table) AND contype IN ('c', 'x')
    UNION ALL
    SELECT relname, 'u', pg_constraint.oid IS NOT NULL,
        coalesce(pg_get_constraintdef(pg_constraint.oid), pg_get_indexdef(indexrelid)),
        ARRAY(
            SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND (
                attnum = ANY (indkey::smallint[]) OR attnum IN (
                    SELECT refobjsubid FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = indexrelid AND refobjid = indrelid
                )
            ) AND attnum > 0
        ),
        ARRAY(
            SELECT attname::text FROM unnest((indkey::smallint[])[0:indnkeyatts - 1]) AS part (attnum)
            JOIN pg_attribute ON attrelid = indrelid AND pg_attribute.attnum = part.attnum
        ),
        indpred IS NOT NULL, indexprs IS NOT NULL, indnullsnotdistinct, NULL
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    LEFT JOIN pg_constraint ON conindid = indexrelid AND contype = 'u' AND conrelid = indrelid
    WHERE indrelid = to_regclass(:table) AND indisunique AND NOT indisprimary
    ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    kind: str
    is_constraint: bool
    definition: str
    columns: list[str]
    key_columns: list[str]
    is_filtered: bool
    has_expressions: bool
    is_null_equal: bool
    condition: str | None


def examine(found: Findings, plan: Plan) -> None:
    """Note the constraints that a write may violate.

    Refuse those that every new row violates.
    """
    for name, table in found.tables.items():
        if table.kind != "r":
            continue
        ours = {column.name: field for field, column in found.columns[name].items()}
        for row in found.connection.execute(_RULES, {"table": quoted(table.name)}):
            rule = _Rule(*row)
            drop = (
                f"ALTER TABLE {quoted(table.name)} DROP CONSTRAINT {quoted(rule.name)}"
                if rule.is_constraint
                else f"DROP INDEX {quoted(rule.name)}"
            )
            if rule.kind == "c" and _is_false_of_new_rows(found, name, rule, ours):
                plan.refuse(
                    f"{table.name} has a constraint {rule.name}, {rule.definition}, which every new row violates,"
                    f" because the API leaves {', '.join(rule.columns)} empty: {drop}"
                )
            elif _may_be_violated(rule, name, ours, table.columns):
                plan.note(
                    f"{table.name} keeps its own constraint {rule.name}, {rule.definition}: a write that violates it is"
                    f" answered with 409 constraint_violated; {drop} removes it"
                )
        _domains(found, plan, name, set(ours))


def _is_false_of_new_rows(found: Findings, name: str, rule: _Rule, ours: dict[str, str]) -> bool:
    """Return whether the check fails if all its columns are NULL.

    They are NULL in rows of the API.
    """
    columns = found.tables[name].columns
    if not rule.columns or any(column in ours or columns[column].has_default for column in rule.columns):
        return False
    empty = ", ".join(f"NULL::{columns[column].type} AS {quoted(column)}" for column in rule.columns)
    try:
        with found.connection.begin_nested():
            # Without parameters, because a name may contain `%`.
            holds = found.connection.exec_driver_sql(
                f"SELECT {rule.condition} FROM (SELECT {empty}) AS new_row", execution_options={"no_parameters": True}
            )
            return holds.scalar() is False
    except DBAPIError:  # A function in it failed, so the result is unknown.
        return False


def _may_be_violated(rule: _Rule, name: str, ours: dict[str, str], columns: dict[str, Column]) -> bool:
    is_written = [column for column in rule.columns if column in ours or columns[column].has_default]
    if rule.kind != "u":
        return bool(is_written)
    if any(column not in is_written and column in rule.key_columns for column in rule.columns):
        return rule.is_null_equal  # NULLs are distinct from each other by default.
    fields = {ours[column] for column in rule.key_columns if column in ours}
    own_key = {"user_id", "post_id"} if name == "votes" else {"id"}
    # Keys that include ours are always unique. app/adoption/constraints.py replaces a unique address by ours.
    is_address = rule.key_columns == [column for column, field in ours.items() if field == "email"]
    is_ours = own_key <= fields or (name == "users" and is_address and not (rule.is_filtered or rule.has_expressions))
    return not is_ours


def _domains(found: Findings, plan: Plan, name: str, ours: set[str]) -> None:
    """Refuse other columns whose domain type forbids NULL.

    The plan cannot make them nullable.
    """
    rows = found.connection.execute(
        text("""
            SELECT attname::text, format_type(atttypid, atttypmod), format_type(typbasetype, typtypmod)
            FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
            WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped AND NOT atthasdef
                AND attidentity = '' AND typtype = 'd' AND typnotnull AND typdefault IS NULL
        """),
        {"table": quoted(found.tables[name].name)},
    )
    for column, domain, base in rows:
        if column not in ours:
            table = quoted(found.tables[name].name)
            plan.refuse(
                f"{found.tables[name].name}.{column} is {domain}, which cannot be NULL. The API does not fill it, so"
                f" that every new row would fail: ALTER TABLE {table} ALTER {quoted(column)} TYPE {base}"
            )
