"""Match other tables and their columns, by usual names and by foreign keys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.flags import TIMES, hidden, is_mixed, may_hide
from app.adoption.names import TEXT, has_usual_name, plain
from app.adoption.plan import Findings, counted, map_option
from app.adoption.rows import PLACEHOLDER_EMAIL
from app.adoption.shape import Column, Shape, Table, quoted
from app.adoption.target import INTEGERS

# Usual names of columns. Names are compared without case and `_`.
POST = ("post_id", "post")
USER = ("user_id", "owner_id", "author_id", "creator_id", "account_id", "commenter_id")
CREATED = ("created_at", "created_on", "created", "time", "timestamp", "date")
UPDATED = ("updated_at", "updated_on", "updated", "modified_at")


class Unclear(Exception):
    """The table is not of the usual shape. The message is the reason."""


def candidates(here: Shape, choices: Choices, meaning: str, taken: Collection[str]) -> list[Table]:
    """Return the mapped table, or those with a usual name, without the tables `taken`."""
    if (mapped := choices.table(here, meaning)) is not None:
        return [mapped]
    return [
        table
        for table in here.tables.values()
        if has_usual_name(table, meaning)
        and table.kind == "r"
        and table.is_ours_to_alter
        and table.name not in {*choices.tables, *taken}
    ]


def primary_key(table: Table) -> str:
    """Return the column of the primary key, which is one integer."""
    key = table.primary_key
    if key is None or len(key.columns) != 1 or table.columns[key.columns[0]].type not in INTEGERS:
        raise Unclear("it has no primary key of one integer")
    return key.columns[0]


def reference(table: Table, target: Table, key: str, usual: Sequence[str]) -> str | None:
    """Return the column that refers to the key of the target.

    It has a foreign key or, without any, a usual name. Raises `Unclear` if several columns may be it.
    """
    keys = [each for each in table.of_kind("f") if len(each.columns) == 1]
    keyed = {each.columns[0] for each in keys if (each.referred, each.referred_columns) == (target.name, (key,))}
    elsewhere = {each.columns[0] for each in keys} - keyed
    named = {column.name for column in _named(table, usual) if column.type in INTEGERS and column.name not in elsewhere}
    possible = sorted(named & keyed or named | keyed)
    if len(possible) > 1:
        raise Unclear(f"{' or '.join(possible)} may refer to {target.name}")
    return next(iter(possible), None)


def named_reference(table: Table, target: Table, key: str, usual: Sequence[str], what: str) -> str:
    """Return the column with a usual name, which refers to the key of the target if it has a foreign key.

    Raises `Unclear` unless it is one.
    """
    elsewhere = {
        each.columns[0]
        for each in table.of_kind("f")
        if len(each.columns) == 1 and (each.referred, each.referred_columns) != (target.name, (key,))
    }
    named = [column.name for column in _named(table, usual)]
    possible = [name for name in named if table.columns[name].type in INTEGERS and name not in elsewhere]
    if len(named) > 1:
        raise Unclear(f"{' or '.join(named)} may be {what}")
    return required(next(iter(possible), None), what)


def others(table: Table, used: Collection[str]) -> list[str]:
    """Return the columns that are not `used`, not the primary key, and not the time of the row."""
    key = table.primary_key.columns if table.primary_key and len(table.primary_key.columns) == 1 else ()
    times = {column.name for column in _named(table, (*CREATED, *UPDATED)) if column.type.startswith(TIMES)}
    return [name for name in table.columns if name not in {*used, *key, *times}]


def required(column: str | None, what: str) -> str:
    """Return the column. Raises `Unclear` if there is none."""
    if column is None:
        raise Unclear(f"it has no column for {what}")
    return column


def text_column(table: Table, usual: Sequence[str], what: str) -> str:
    """Return the column of a text. Raises `Unclear` unless it is one."""
    possible = [column.name for column in _named(table, usual) if TEXT.match(column.type) and column.type[-1] != "]"]
    if len(possible) > 1:
        raise Unclear(f"{' or '.join(possible)} may be {what}")
    return required(next(iter(possible), None), what)


def time(table: Table, usual: Sequence[str], time_zone: str) -> str:
    """Return SQL for the time of a row, which may be NULL."""
    for column in _named(table, usual):
        if column.type.startswith(TIMES):
            is_zoned = column.type.endswith("with time zone")
            return _of_row(column) + ("" if is_zoned else f"::timestamp AT TIME ZONE '{time_zone}'")
    return "NULL::timestamptz"


def hides(
    found: Findings, table: Table, used: Collection[str | None], choices: Choices, meaning: str
) -> dict[str, str]:
    """Return SQL, by the column, that is true for rows that are not shown.

    Raises `Unclear` if another column may say so, unless the operator has mapped the table.
    """
    others = [column for column in table.columns.values() if column.name not in used]
    conditions = {column.name: hidden(column) for column in others if may_hide(column)}
    for name, condition in conditions.items():
        if (
            condition is None
            and table.name not in choices.tables
            and is_mixed(found, quoted(table.name), table.columns[name])
        ):
            raise Unclear(f"{name} may say which are shown; {map_option(table.name, meaning)} takes all")
    return {
        name: condition.format(column=_of_row(table.columns[name]))
        for name, condition in conditions.items()
        if condition is not None
    }


def whens(hides: Mapping[str, str]) -> str:
    """Return branches of CASE that say which column hides the row."""
    return " ".join(f"WHEN {condition} THEN 'hidden by {column}'" for column, condition in hides.items())


def _named(table: Table, usual: Sequence[str]) -> list[Column]:
    """Return the columns with a usual name, in the order of these."""
    columns = {plain(column.name): column for column in table.columns.values()}
    return [columns[name] for name in map(plain, usual) if name in columns]


def _of_row(column: Column) -> str:
    return f"t.{quoted(column.name)}"


@dataclass(frozen=True, slots=True)
class Ours:
    """Names in SQL of posts and accounts. They differ before and after the plan's steps."""

    posts: str = "posts"
    post_id: str = "id"
    users: str = "users"
    user_id: str = "id"
    email: str = "email"

    @classmethod
    def before(cls, found: Findings) -> "Ours":
        users = (found.name("users", "id"), found.name("users", "email"))
        return cls(found.name("posts"), found.name("posts", "id"), found.name("users"), *users)

    def join_post(self, column: str) -> str:
        """Return SQL that joins `post`, whose `{post_id}` is NULL if the post of `t` is missing."""
        return f"LEFT JOIN {self.posts} AS post ON post.{self.post_id} = t.{quoted(column)}"

    def join_user(self, column: str, alias: str = "person") -> str:
        """Return SQL that joins the account.

        It is never the placeholder, which may have got the id of a missing account.
        """
        return (
            f"LEFT JOIN {self.users} AS {alias} ON {alias}.{self.user_id} = t.{quoted(column)}"
            f" AND {alias}.{self.email} <> '{PLACEHOLDER_EMAIL}'"
        )


def count_by_reason(found: Findings, reason: str, rows: str) -> dict[str | None, int]:
    """Count the rows by the reason for which they are not taken over, or None."""
    counted_rows = found.connection.execute(text(f"SELECT {reason} AS reason, count(*) FROM {rows} GROUP BY 1"))
    return {row[0]: row[1] for row in counted_rows}


def described(numbers: dict[str | None, int], noun: str, source: str, stays_in: str) -> str:
    """Describe what is taken over and what is not."""
    said = f"take over {counted(numbers.get(None, 0), noun)} from {source}"
    left = [f"{number:,} {reason}" for reason, number in sorted(numbers.items(), key=str) if reason is not None]
    return said + (f"; {', '.join(left)} stay in {stays_in} only" if left else "")
