"""Findings and plan, which all parts of the examination share."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from app.adoption.shape import Column, Shape, Table, quoted

MAX_NAMED_ROWS = 20


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, such as `1 post` or `2,000 posts`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def some(values: Iterable[object]) -> str:
    """List the values, at most `MAX_NAMED_ROWS` of them."""
    listed = list(values)
    return ", ".join(map(str, listed[:MAX_NAMED_ROWS])) + (", …" if len(listed) > MAX_NAMED_ROWS else "")


def map_option(name: str, meaning: str) -> str:
    """Return the option that gives a table or column this meaning, shell-quoted."""
    return f"--map {shlex.quote(f'{name}={meaning}')}"


def on_delete_option(name: str, action: str) -> str:
    """Return the option that changes the column's foreign key, shell-quoted."""
    return f"--on-delete {shlex.quote(f'{name}={action}')}"


@dataclass(frozen=True, slots=True)
class Takeover:
    """Rows of another table that are copied into a table of a later migration.

    `statements` run after the migration `revision`, with the names that tables and columns have then.
    """

    revision: str
    what: str
    statements: tuple[str, ...]
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What was found, the steps in order with their SQL, notes, and reasons to refuse.

    `is_adopted`: the database already has this project's tables, and at most lacks migrations. `is_current`: it lacks
    none.
    """

    is_adopted: bool = False
    is_current: bool = False
    found: list[str] = field(default_factory=list)
    steps: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    takeovers: list[Takeover] = field(default_factory=list)
    # SQL conditions on `users` that select disabled accounts, with the column names after the steps.
    inactive: list[str] = field(default_factory=list)

    def do(self, what: str, *statements: str) -> None:
        self.steps.append((what, statements))

    def refuse(self, reason: str) -> None:
        self.refusals.append(reason)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(slots=True)
class Findings:
    """Existing tables and columns by the tutorial's names.

    `former` has the new names, by (table, column), of columns that are renamed because their name is needed.
    """

    connection: Connection
    shape: Shape
    tables: dict[str, Table]
    columns: dict[str, dict[str, Column]] = field(default_factory=dict)
    former: dict[tuple[str, str], str] = field(default_factory=dict)
    # The next number of the sequence of each table's ids.
    next_id: dict[str, int] = field(default_factory=dict)

    def name(self, table: str, column: str | None = None) -> str:
        """Return the existing name of the table or column, quoted."""
        return quoted(self.columns[table][column].name if column else self.tables[table].name)

    def has(self, table: str, column: str) -> bool:
        return column in self.columns.get(table, {})

    def count(self, table: str, condition: str) -> int:
        """Count the rows that fulfil the condition, in which the table is `t`."""
        return int(self.connection.scalar(text(f"SELECT count(*) FROM {self.name(table)} AS t WHERE {condition}")) or 0)
