"""Which of their tables and columns are which of ours; renaming these to our names, and others out of the way."""

from collections.abc import Container

from app.adoption.plan import Findings, Plan
from app.adoption.shape import Column, Shape, Table, quoted
from app.adoption.target import FIELDS, REFERENCES, Field, later_columns, taken_constraints, taken_relations

# What `pg_class.relkind` is called in ALTER.
KINDS = {"r": "TABLE", "p": "TABLE", "i": "INDEX", "S": "SEQUENCE", "v": "VIEW", "m": "MATERIALIZED VIEW"}


def find_tables(shape: Shape) -> dict[str, Table]:
    """The tutorial's tables, also where their names are singular or begin with a capital."""
    found = {}
    for name in FIELDS:
        singular = name.removesuffix("s")
        for other in (name, singular, name.capitalize(), singular.capitalize()):
            if other in shape.tables:
                found[name] = shape.tables[other]
                break
    return found


def match_columns(found: Findings, plan: Plan) -> None:
    """Find the tutorial's columns by their name, another usual name, or the table that they refer to."""
    for table_name, table in found.tables.items():
        matched: dict[str, Column] = {}
        for field in FIELDS[table_name]:
            column = _match(found, table, field, {column.name for column in matched.values()})
            if column is not None:
                matched[field.name] = column
            elif not field.may_be_missing:
                plan.refuse(f"{table.name} has no column {field.name}, nor one that could be it: rename it to that")
        found.columns[table_name] = matched


def _match(found: Findings, table: Table, field: Field, used: set[str]) -> Column | None:
    names = [field.name, *field.also_called]
    if field.refers_to in found.tables:
        keys = [key for key in table.of_kind("f") if key.referred == found.tables[field.refers_to].name]
        names += [key.columns[0] for key in keys if len({key.columns for key in keys}) == 1 == len(key.columns)]
    return next((table.columns[name] for name in names if name in table.columns and name not in used), None)


def rename(found: Findings, plan: Plan) -> None:
    """Free the names that we need, then give the tutorial's names."""
    for name, table in found.tables.items():
        if table.name != name:
            plan.do(f"rename table {table.name} to {name}", f"ALTER TABLE {quoted(table.name)} RENAME TO {name}")
    _free_relations(found, plan)
    for name in found.tables:
        _free_columns(found, plan, name)
        _free_constraints(found, plan, name)
        for field, column in found.columns[name].items():
            if column.name != field:
                plan.do(
                    f"rename column {name}.{column.name} to {field}",
                    f"ALTER TABLE {name} RENAME COLUMN {quoted(column.name)} TO {field}",
                )


def _former(name: str, taken: Container[str], plan: Plan, what: str) -> str:
    """The name's new form. Refused where that is taken too, so that it can be found again by its name."""
    former = f"former_{name}"
    if former in taken:
        plan.refuse(f"{what}{name} is in the way, and so is {former}: rename one of them")
    return former


def _free_relations(found: Findings, plan: Plan) -> None:
    handled = {table.name for table in found.tables.values()}
    for table in found.tables.values():
        # These are renamed, replaced or kept where constraints and keys are looked after.
        handled |= {key.name for key in table.constraints if key.kind == "p" or key.columns == ("email",)}
        handled |= {str(column.sequence) for column in table.columns.values()}
        handled |= {f"{table.name}_id_seq" for column in table.columns.values() if column.is_identity}
    for name, kind in sorted(found.shape.relations.items()):
        if name in taken_relations() and name not in handled:
            former = _former(name, found.shape.relations, plan, "the name ")
            plan.do(
                f"rename {KINDS.get(kind, 'TABLE').lower()} {name}, whose name is needed, to {former}",
                f"ALTER {KINDS.get(kind, 'TABLE')} {quoted(name)} RENAME TO {quoted(former)}",
            )


def _free_columns(found: Findings, plan: Plan, name: str) -> None:
    table = found.tables[name]
    used = {column.name for column in found.columns[name].values()}
    for column in table.columns.values():
        if column.name in later_columns(name) - used:
            former = _former(column.name, table.columns, plan, f"column {name}.")
            found.former[name, column.name] = former
            plan.do(
                f"rename column {name}.{column.name}, whose name is needed, to {former}",
                f"ALTER TABLE {name} RENAME COLUMN {quoted(column.name)} TO {quoted(former)}",
            )


def _free_constraints(found: Findings, plan: Plan, name: str) -> None:
    table = found.tables[name]
    ours = {found.columns[name][column].name for on, column in REFERENCES if on == name and found.has(on, column)}
    for key in table.of_kind("f") + table.of_kind("c"):
        is_handled = key.kind == "f" and len(key.columns) == 1 and key.columns[0] in ours
        if key.name in taken_constraints(name) and not is_handled:
            former = _former(key.name, {other.name for other in table.constraints}, plan, "constraint ")
            plan.do(
                f"rename constraint {key.name}, whose name is needed, to {former}",
                f"ALTER TABLE {name} RENAME CONSTRAINT {quoted(key.name)} TO {quoted(former)}",
            )
