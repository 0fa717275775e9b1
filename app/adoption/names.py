"""Match existing tables and columns to the tutorial's, and rename them.

Names that are needed are freed first.
"""

import re
from collections.abc import Collection, Container

from app.adoption.choices import Choices
from app.adoption.plan import MAX_NAMED_ROWS, Findings, Plan, map_option
from app.adoption.shape import Column, Shape, Table, quoted
from app.adoption.target import FIELDS, REFERENCES, TAKEN_OVER, Field, later_columns, taken_constraints, taken_relations

# Keyword of ALTER by `pg_class.relkind`.
KINDS = {"r": "TABLE", "p": "TABLE", "i": "INDEX", "S": "SEQUENCE", "v": "VIEW", "m": "MATERIALIZED VIEW"}
# Text columns of accounts under other names than those in FIELDS.
LIKE = {"email": r"e_?mail|^mail", "password": r"passw|pwd|^pass|^pw_?hash|^hash(ed)?$"}
TEXT = re.compile(r"text|citext|character")
# Names of columns that may be the owner if none has a known name.
LIKE_OWNER = re.compile(r"author|owner|user|writer|creator|poster|account|member|person|_by$", re.IGNORECASE)


def find_tables(here: Shape, choices: Choices, plan: Plan) -> dict[str, Table]:
    """Find the tutorial's tables.

    The operator's choice, usual names, foreign keys or columns identify them. The table of accounts is the one that
    posts and votes refer to, even if another one is named `users`.
    """
    found: dict[str, Table] = {}
    for name in ("posts", "votes", "users"):
        table = choices.table(here, name) or _table_by_name(here, choices, name)
        if table is not None:
            found[name] = table
    if "posts" in found and choices.table(here, "users") is None:
        _find_people(here, choices, plan, found)
    if "users" in found and "posts" in found and "votes" not in found:
        _ask_for_votes(here, choices, plan, found)
    return {name: found[name] for name in FIELDS if name in found}


def table_options(here: Shape, others: Collection[str], meaning: str) -> str:
    """Return a `--map` option with the meaning for each table except `others`."""
    names = [
        table.name
        for table in here.tables.values()
        if table.kind == "r" and table.name != "alembic_version" and table.name not in others
    ]
    return _one_of(sorted(names), meaning)


def _one_of(names: Collection[str], meaning: str) -> str:
    options = [map_option(name, meaning) for name in names]
    return " or ".join(options[:MAX_NAMED_ROWS]) or f"an option for the {meaning}"


def _table_by_name(here: Shape, choices: Choices, name: str) -> Table | None:
    singular = name.removesuffix("s")
    names = (name, singular, name.capitalize(), singular.capitalize())
    return next((here.tables[other] for other in names if other in here.tables and other not in choices.tables), None)


def _find_people(here: Shape, choices: Choices, plan: Plan, found: dict[str, Table]) -> None:
    """Set `users` to the table of accounts, or refuse if it is ambiguous."""
    taken = {table.name for name, table in found.items() if name != "users"}
    alike = {
        table.name
        for table in here.tables.values()
        if table.name not in taken and table.name not in choices.tables and _has_people(table)
    }
    referred = _referred_people(choices, found, alike) - taken
    named = found.get("users")
    others = alike - {named.name} if named is not None else alike

    def hint(names: Collection[str]) -> str:
        return f"{_one_of(sorted(names), 'users')} says which it is"

    if len(referred) > 1:
        plan.refuse(f"posts and votes refer to people in {' and in '.join(sorted(referred))}: {hint(referred)}")
    elif referred:
        (name,) = referred
        if name not in here.tables:
            plan.refuse(
                f"the owners of posts are in {name}, in another schema: move it here (ALTER TABLE … SET SCHEMA)"
            )
            return
        if named is not None and named.name in alike and named.name != name:
            plan.refuse(
                f"posts and votes refer to people in {name}, and {named.name} has people too:"
                f" {hint({name, named.name})}"
            )
        found["users"] = here.tables[name]
        if unknown := sorted(alike - {name} - ({named.name} if named else set())):
            plan.note(f"{', '.join(unknown)}: kept, but people in there cannot sign in, as nothing refers to them")
    elif others and (named is not None or len(others) > 1):
        possible = alike | ({named.name} if named else set())
        plan.refuse(f"people may be in {' or in '.join(sorted(possible))}: {hint(possible)}")
    elif others:
        found["users"] = here.tables[next(iter(others))]


def _has_people(table: Table) -> bool:
    return table.kind == "r" and all(
        any(_is_like(column, field) for column in table.columns.values()) for field in ("email", "password")
    )


def _is_like(column: Column, field: str) -> bool:
    return re.search(LIKE[field], column.name, re.IGNORECASE) is not None and TEXT.match(column.type) is not None


def _referred_people(choices: Choices, found: dict[str, Table], alike: Collection[str]) -> set[str]:
    """Return the tables that owners of posts and voters refer to."""
    referred = set()
    for name in ("posts", "votes"):
        if name not in found:
            continue
        table = found[name]
        (field,) = (field for field in FIELDS[name] if field.refers_to == "users")
        keys = [key for key in table.of_kind("f") if len(key.columns) == 1 and key.referred]
        said = [key for key in keys if choices.meaning(name, table, key.columns[0]) == field.name]
        usual = [key for key in keys if key.columns[0] in {field.name, *field.also_called}]
        referred |= {str(key.referred) for key in said or usual or [key for key in keys if key.referred in alike]}
    return referred


def _ask_for_votes(here: Shape, choices: Choices, plan: Plan, found: dict[str, Table]) -> None:
    """Refuse if a table with one row per user and post may contain the votes."""
    for table in here.tables.values():
        keys = {key.columns: key.referred for key in table.of_kind("f") if len(key.columns) == 1}
        pair = [columns for columns, referred in keys.items() if referred in {found["posts"].name, found["users"].name}]
        is_unique = any(sorted(key.columns) == sorted(sum(pair, ())) for key in table.of_kind("p") + table.of_kind("u"))
        if (
            len(set(keys.values())) == len(pair) == 2
            and is_unique
            and not (table.name in choices.tables or has_usual_name(table, "bookmarks"))
        ):
            plan.refuse(
                f"{table.name} may have the votes: {map_option(table.name, 'votes')} takes them over,"
                f" {map_option(table.name, 'ignore')} leaves them"
            )


def match_columns(found: Findings, choices: Choices, plan: Plan) -> None:
    """Find the tutorial's columns.

    The operator's choice, usual names or the tables that they refer to identify them.
    """
    for name, table in found.tables.items():
        matched: dict[str, Column] = {}
        found.columns[name] = matched
        said = {column: meaning for column in table.columns if (meaning := choices.meaning(name, table, column))}
        for field in FIELDS[name]:
            free = {
                column.name: column
                for column in table.columns.values()
                if said.get(column.name, field.name) == field.name and column not in matched.values()
            }
            mapped = [column for column in free if said.get(column) == field.name]
            candidates = mapped or _candidates(found, table, field, free)
            if len(candidates) > 1:
                plan.refuse(
                    f"{' or '.join(f'{table.name}.{column}' for column in candidates)} may be the {field.name}:"
                    f" {_one_of([f'{table.name}.{column}' for column in candidates], field.name)} says which it is"
                )
            if candidates:
                matched[field.name] = free[candidates[0]]
            elif not field.may_be_missing:
                plan.refuse(
                    f"{table.name} has no column {field.name}, nor one that could be it: "
                    + _column_options(table, field, free)
                )
        _check_keys(found, plan, name)
    if "posts" in found.tables:
        _ask_for_hidden_meaning(found, choices, plan)


def _candidates(found: Findings, table: Table, field: Field, free: dict[str, Column]) -> list[str]:
    """Return the columns that may be the field: one, or several if it is ambiguous."""
    names = [name for name in (field.name, *field.also_called) if name in free]
    if field.refers_to is None:
        if not names and field.name in LIKE:
            return [name for name, column in free.items() if _is_like(column, field.name)]
        if not names and field.name == "id" and table.primary_key and len(table.primary_key.columns) == 1:
            return [name for name in table.primary_key.columns if name in free]
        # With two addresses or passwords, users may sign in with either.
        return names if field.name in LIKE else names[:1]
    single = [key for key in table.of_kind("f") if len(key.columns) == 1 and key.columns[0] in free]
    people = found.tables.get(field.refers_to)
    keyed = {key.columns[0] for key in single if people is not None and key.referred == people.name}
    elsewhere = {key.columns[0] for key in single} - keyed
    names = [name for name in names if name not in elsewhere]
    if len(names) > 1 and (field.name in keyed or not keyed.intersection(names)):
        return names[:1] if field.name in names else names
    # Editors and reviewers refer to users too. An owner column is required or has a typical name.
    likely = [name for name in sorted(keyed) if table.columns[name].is_required or LIKE_OWNER.search(name)]
    return [name for name in names if name in keyed] or names or (likely if field.may_be_missing else sorted(keyed))


def _column_options(table: Table, field: Field, free: dict[str, Column]) -> str:
    """Return a `--map` option for each column whose type fits the field."""
    fits = [name for name, column in free.items() if field.kind != "text" or TEXT.match(column.type)]
    if not fits:
        return "add one"
    return f"{_one_of([f'{table.name}.{name}' for name in fits], field.name)} says which it is"


def _check_keys(found: Findings, plan: Plan, name: str) -> None:
    """Refuse foreign keys to another table or column.

    Their values identify rows of that table or column, not of ours.
    """
    for field in FIELDS[name]:
        if not (found.has(name, field.name) and field.refers_to and found.has(field.refers_to, "id")):
            continue
        column = found.columns[name][field.name].name
        referred, wanted = found.tables[field.refers_to].name, found.columns[field.refers_to]["id"].name
        for key in found.tables[name].of_kind("f"):
            if key.columns == (column,) and (key.referred, key.referred_columns) != (referred, (wanted,)):
                plan.refuse(
                    f"{found.tables[name].name}.{column} refers to {key.referred}.{', '.join(key.referred_columns)},"
                    f" not to {referred}.{wanted}: make it refer to that"
                )


def _ask_for_hidden_meaning(found: Findings, choices: Choices, plan: Plan) -> None:
    """Refuse if posts lack an owner or content that another column may contain."""
    table = found.tables["posts"]
    if not found.count("posts", "true"):
        return
    used = {column.name for column in found.columns["posts"].values()}
    people = found.tables["users"].name if "users" in found.tables else None
    to_people = {key.columns[0] for key in table.of_kind("f") if key.referred == people}
    keys = {key.columns[0] for key in table.of_kind("f")} - to_people
    left = [
        column
        for column in table.columns.values()
        if column.name not in used | keys and choices.meaning("posts", table, column.name) is None
    ]
    asked = {
        "owner_id": [c.name for c in left if c.name in to_people or LIKE_OWNER.search(c.name)],
        "content": [column.name for column in left if TEXT.match(column.type)],
    }
    for field, names in asked.items():
        if names and not found.has("posts", field):
            plan.refuse(
                f"{table.name} has no column {field}, but {', '.join(names)}:"
                f" {map_option(f'{table.name}.{names[0]}', field)} says that it is that,"
                f" {map_option(f'{table.name}.{names[0]}', 'ignore')} that it is not"
            )


def rename(found: Findings, plan: Plan) -> None:
    """Rename tables and columns to the tutorial's names.

    First free the names that are needed.
    """
    _free_relations(found, plan)
    for name, table in found.tables.items():
        if table.name != name:
            plan.do(f"rename table {table.name} to {name}", f"ALTER TABLE {quoted(table.name)} RENAME TO {name}")
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
    """Return the name with `former_`.

    Refuse if that is taken too, so that the new name is predictable.
    """
    former = f"former_{name}"
    if former in taken:
        plan.refuse(f"{what}{name} is in the way, and so is {former}: rename one of them")
    return former


def plain(name: str) -> str:
    """Return the name without case and `_`."""
    return name.lower().replace("_", "")


def has_usual_name(table: Table, meaning: str) -> bool:
    """Return whether tables that can be copied into our table `meaning` are usually called so."""
    return plain(table.name) in map(plain, TAKEN_OVER[meaning])


def name_after(table: Table) -> str:
    """Return the name that a table, which is none of the tutorial's, has after `rename`."""
    return f"former_{table.name}" if table.name in taken_relations() | set(FIELDS) else table.name


def _free_relations(found: Findings, plan: Plan) -> None:
    handled = {table.name for table in found.tables.values()}
    needed = taken_relations() | set(FIELDS)
    for table in found.tables.values():
        # Constraints and sequences that other modules rename, replace or keep.
        handled |= {key.name for key in table.constraints if key.kind == "p" or key.columns == ("email",)}
        handled |= {str(column.sequence) for column in table.columns.values()}
        handled |= {f"{table.name}_id_seq" for column in table.columns.values() if column.is_identity}
    for name, kind in sorted(found.shape.relations.items()):
        if name in needed and name not in handled:
            former = _former(name, found.shape.relations, plan, "the name ")
            plan.do(
                f"rename {KINDS.get(kind, 'TABLE').lower()} {name}, whose name is needed, to {former}",
                f"ALTER {KINDS.get(kind, 'TABLE')} {quoted(name)} RENAME TO {quoted(former)}",
            )


def _free_columns(found: Findings, plan: Plan, name: str) -> None:
    table = found.tables[name]
    used = {column.name for column in found.columns[name].values()}
    # Includes names of the tutorial that another column will get.
    needed = later_columns(name) | {field.name for field in FIELDS[name]}
    for column in table.columns.values():
        if column.name in needed - used:
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
