"""Operator's choices where the database is ambiguous: `--map`, `--on-delete`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.adoption.plan import Findings, Plan
from app.adoption.shape import Shape, Table
from app.adoption.target import FIELDS, TAKEN_OVER

# Meanings that `--map` can give a column, besides the tutorial's columns.
MEANINGS = {"users": ("inactive", "ignore"), "posts": ("unpublished", "ignore"), "votes": ("direction", "ignore")}
ACTIONS = {"cascade": "CASCADE", "set-null": "SET NULL"}


class MalformedChoice(ValueError):
    """An option does not have the form shown in `--help`. The message is one line."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Parsed options.

    `tables` maps existing tables to ours or to `ignore`, `columns` maps (table, column) to a meaning, with either name
    of the table. `on_delete` maps (table, column) of a foreign key to an action.
    """

    tables: dict[str, str] = field(default_factory=dict)
    columns: dict[tuple[str, str], str] = field(default_factory=dict)
    on_delete: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def parse(cls, maps: Sequence[str], on_delete: Sequence[str]) -> "Choices":
        """Read the options. Raises `MalformedChoice`."""
        choices = cls()
        for option in maps:
            name, separator, meaning = option.rpartition("=")
            table, dot, column = name.partition(".")
            if not (separator and table and meaning and bool(dot) == bool(column)):
                raise MalformedChoice(f"--map {option}: give accounts=users, accounts.login=email or the like")
            if column:
                choices.columns[table, column] = meaning
            elif meaning in {*FIELDS, *TAKEN_OVER, "ignore"}:
                choices.tables[table] = meaning
            else:
                raise MalformedChoice(f"--map {option}: a table can be {', '.join([*FIELDS, *TAKEN_OVER])} or ignore")
        for option in on_delete:
            name, _, action = option.rpartition("=")
            table, _, column = name.rpartition(".")
            if not (table and column and action in ACTIONS):
                raise MalformedChoice(f"--on-delete {option}: give comments.post_id=cascade or …=set-null")
            choices.on_delete[table, column] = action
        return choices

    def table(self, shape: Shape, name: str) -> Table | None:
        """Return the existing table that is mapped to our table `name`."""
        return next((shape.tables[theirs] for theirs, ours in self.tables.items() if ours == name
                     and theirs in shape.tables), None)  # fmt: skip

    def meaning(self, name: str, table: Table, column: str) -> str | None:
        """Return the meaning of a column of the table that becomes our table `name`."""
        return self.columns.get((table.name, column)) or self.columns.get((name, column))


def check(found: Findings, choices: Choices, plan: Plan) -> None:
    """Refuse choices about missing tables and columns.

    Otherwise a misspelt name would be ignored.
    """
    for theirs, ours in choices.tables.items():
        if theirs not in found.shape.tables:
            plan.refuse(f"--map {theirs}={ours}: there is no table {theirs}")
    for (theirs, column), meaning in choices.columns.items():
        option = f"--map {theirs}.{column}={meaning}"
        name = next((name for name, table in found.tables.items() if theirs in {name, table.name}), None)
        if name is None:
            plan.refuse(f"{option}: {theirs} is not the table of users, posts or votes")
        elif column not in found.tables[name].columns:
            plan.refuse(f"{option}: {theirs} has no column {column}")
        elif meaning not in (possible := (*(field.name for field in FIELDS[name]), *MEANINGS[name])):
            plan.refuse(f"{option}: a column of {name} can be {', '.join(possible)}")
