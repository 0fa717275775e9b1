"""Foreign keys of other tables that prevent deletions.

The operator decides about them with `--on-delete`.
"""

import re

from app.adoption.choices import ACTIONS, Choices
from app.adoption.plan import Findings, Plan, on_delete_option
from app.adoption.shape import Constraint, Table, quoted
from app.adoption.target import REFERENCES

# Actions as in `pg_constraint.confdeltype`.
CASCADE, SET_NULL, SET_DEFAULT = "c", "n", "d"
_ON_DELETE = re.compile(r" ON DELETE (RESTRICT|CASCADE|SET (NULL|DEFAULT)( \([^)]*\))?)")
CODES = {"cascade": CASCADE, "set-null": SET_NULL}


def examine(found: Findings, choices: Choices, plan: Plan) -> None:
    """Note foreign keys that prevent deletions; change those in `--on-delete`."""
    ours = {
        (found.tables[table].name, found.columns[table][column].name)
        for table, column in REFERENCES
        if found.has(table, column)
    }
    unused = set(choices.on_delete)
    # Other rows may refer to rows that are deleted with a post.
    deleted = [table.name for table in found.tables.values()]
    for table in deleted:
        for key in found.shape.references_to(table):
            own = _table_of(found, key)
            name = own.name if own else key.table
            if (name, *key.columns) in ours:
                continue
            chosen = next((column for column in key.columns if (name, column) in choices.on_delete), None)
            action = key.on_delete
            if chosen is not None:
                unused.discard((name, chosen))
                action = CODES[choices.on_delete[name, chosen]]
                _change(own, plan, key, choices.on_delete[name, chosen])
            elif action not in {CASCADE, SET_NULL, SET_DEFAULT}:
                column = f"{name}.{key.columns[0]}"
                # `SET NULL` needs every column of the key to be nullable. For tables of other schemas this is unknown.
                can_be_null = own is None or not any(own.columns[each].is_required for each in key.columns)
                plan.note(
                    f"{column} refers to {table}, so that what it refers to cannot be deleted:"
                    f" {on_delete_option(column, 'cascade')} deletes both"
                    + (f", {on_delete_option(column, 'set-null')} makes it NULL" if can_be_null else "")
                )
            if action == CASCADE and own is not None and own.name not in deleted:
                deleted.append(own.name)
    for name, column in sorted(unused):
        plan.refuse(f"--on-delete {name}.{column}: the column has no foreign key to rows that can be deleted")


def _table_of(found: Findings, key: Constraint) -> Table | None:
    return next((table for table in found.shape.tables.values() if key in table.constraints), None)


def _change(table: Table | None, plan: Plan, key: Constraint, action: str) -> None:
    required = [name for name in key.columns if table is not None and table.columns[name].is_required]
    if action == "set-null" and required:
        plan.refuse(f"--on-delete {key.table}.{key.columns[0]}=set-null: {', '.join(required)} cannot be NULL")
        return
    definition = _ON_DELETE.sub("", key.definition)
    changed = re.sub(
        r"( NOT DEFERRABLE| DEFERRABLE| INITIALLY \w+| NOT ENFORCED| NOT VALID)*$",
        lambda rest: f" ON DELETE {ACTIONS[action]}{rest[0]}",
        definition,
        count=1,
    )
    plan.do(
        f"let deletions in {key.referred} {'delete the rows of' if action == 'cascade' else 'set to NULL'}"
        f" {key.table}.{', '.join(key.columns)}",
        f"ALTER TABLE {key.table} DROP CONSTRAINT {quoted(key.name)}",
        f"ALTER TABLE {key.table} ADD CONSTRAINT {quoted(key.name)} {changed}",
    )
