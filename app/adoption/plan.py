"""What the parts of an examination share: what was found, and the plan that they write."""

import shlex
from collections.abc import Iterable
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
    """Return the option that gives the table or column this meaning, to be copied into a shell."""
    return f"--map {shlex.quote(f'{name}={meaning}')}"


def on_delete_option(name: str, action: str) -> str:
    """Return the option that changes the foreign key of the column, to be copied into a shell."""
    return f"--on-delete {shlex.quote(f'{name}={action}')}"


@dataclass(slots=True)
class Plan:
    """What was found, what will be done (in order, with its SQL), what is worth knowing, what stands against it.

    `is_adopted`: the database has this project's tables already; only migrations may be missing. `is_current`: none is.
    """

    is_adopted: bool = False
    is_current: bool = False
    found: list[str] = field(default_factory=list)
    steps: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    # SQL conditions on `users`, with the columns' names after the steps: who may not sign in.
    inactive: list[str] = field(default_factory=list)

    def do(self, what: str, *statements: str) -> None:
        self.steps.append((what, statements))

    def refuse(self, reason: str) -> None:
        self.refusals.append(reason)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(slots=True)
class Findings:
    """The tables and their columns by the tutorial's names, whatever they are called here.

    `former` has the new names of columns that are renamed because theirs is needed, by (table, column).
    """

    connection: Connection
    shape: Shape
    tables: dict[str, Table]
    columns: dict[str, dict[str, Column]] = field(default_factory=dict)
    former: dict[tuple[str, str], str] = field(default_factory=dict)
    # The next number of the sequence of each table's ids.
    next_id: dict[str, int] = field(default_factory=dict)

    def name(self, table: str, column: str | None = None) -> str:
        """What the table, or the column, is called here, quoted."""
        return quoted(self.columns[table][column].name if column else self.tables[table].name)

    def has(self, table: str, column: str) -> bool:
        return column in self.columns.get(table, {})

    def count(self, table: str, condition: str) -> int:
        """How many rows of the table, which is called `t` in the condition, fulfil it."""
        return int(self.connection.scalar(text(f"SELECT count(*) FROM {self.name(table)} AS t WHERE {condition}")) or 0)
