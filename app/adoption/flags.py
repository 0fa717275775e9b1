"""Existing columns that may mark disabled users or hidden posts.

The application has its own columns for these. So it reads others only if the operator says so.
"""

import re

from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.plan import Findings, Plan, counted, map_option
from app.adoption.shape import Column, quoted
from app.adoption.target import INTEGERS

_ENDED = "(blocked|banned|disabled|deleted|suspended|locked|deactivated|inactive|removed|archived|frozen)"
_HIDDEN = "(deleted|removed|hidden|draft|private|archived|unlisted|trashed|blocked|banned)"
_WHEN = "(_(at|on|since|until))?"
# By table: names of flags set by true or by a time, names of flags set by false, names of columns of other types.
_NAMES = {
    "users": (
        f"(is_)?{_ENDED}{_WHEN}",
        "(is_)?(active|enabled|activated|approved)",
        "(account_|user_)?(status|state)",
    ),
    "posts": (
        f"(is_)?{_HIDDEN}{_WHEN}",
        "(is_)?(public|visible|active|approved)",
        "(post_)?(status|state|visibility)",
    ),
}
# Of tables that are taken over. Of posts, `published` is a column of the tutorial.
_NAMES["others"] = (_NAMES["posts"][0], "(is_)?(public|published|visible|active|approved)", _NAMES["posts"][2])
_MEANING = {
    "users": ("inactive", "may not sign in", "keeps them out", "lets them in"),
    "posts": ("unpublished", "should be hidden", "makes them drafts", "shows them to all"),
}
TIMES = ("timestamp", "date")


def ask(found: Findings, choices: Choices, plan: Plan) -> None:
    """Apply the chosen meanings of flags.

    Refuse if a flag is set in some row and has no chosen meaning.
    """
    for name in ("users", "posts"):
        if name not in found.tables:
            continue
        meaning, what, yes, no = _MEANING[name]
        chosen = []
        matched = {column.name for column in found.columns[name].values()}
        for column in found.tables[name].columns.values():
            said = choices.meaning(name, found.tables[name], column.name)
            if column.name in matched or said == "ignore":
                continue
            theirs = f"{found.tables[name].name}.{column.name}"
            condition = _condition(name, column, is_told=said == meaning)
            if condition is None:
                is_known = any(_is_named(name, kind, column) for kind in range(3))
                if said == meaning or (is_known and is_mixed(found, found.name(name), column)):
                    plan.refuse(
                        f"{theirs} is {column.type}, and may say which {name} {what}: put that into a boolean column"
                        f" and map that one to {meaning}; {map_option(theirs, 'ignore')} {no}"
                    )
            elif said == meaning:
                chosen.append((column, condition))
            elif count := found.count(name, condition.format(column=quoted(column.name))):
                plan.refuse(
                    f"{counted(count, name[:-1])} {what}, {theirs} says: {map_option(theirs, meaning)} {yes},"
                    f" {map_option(theirs, 'ignore')} {no}"
                )
        for column, condition in chosen:
            here, then = column.name, found.former.get((name, column.name), column.name)
            count = found.count(name, condition.format(column=quoted(here)))
            what = f"{counted(count, name[:-1])} because of {found.tables[name].name}.{here}"
            _apply(found, plan, name, what, condition.format(column=quoted(then)))


def _apply(found: Findings, plan: Plan, name: str, what: str, condition: str) -> None:
    if name == "users":
        plan.note(f"cannot sign in: {what}")
        plan.inactive.append(condition)
        return
    if "former_published" in found.shape.relations:
        plan.refuse("there is a table former_published already: rename it")
    plan.do(
        f"make drafts of {what}; former_published keeps which were published",
        "CREATE TABLE IF NOT EXISTS former_published (post_id bigint)",
        f"INSERT INTO former_published SELECT id FROM posts WHERE published AND {condition}",
        f"UPDATE posts SET published = false WHERE published AND {condition}",
    )


def _is_named(name: str, kind: int, column: Column) -> bool:
    return re.fullmatch(_NAMES[name][kind], column.name, re.IGNORECASE) is not None


def may_hide(column: Column) -> bool:
    """Return whether the column of a table may mark rows that are not shown."""
    return any(_is_named("others", kind, column) for kind in range(3))


def hidden(column: Column) -> str | None:
    """Return SQL that is true if the flag `{column}` marks a row that is not shown.

    Return None if its type or name does not tell when it is set.
    """
    condition = _condition("others", column, is_told=False)
    # A row that is not approved yet may have NULL.
    return f"({condition}) IS NOT FALSE" if condition and _is_named("others", 1, column) else condition


def _condition(name: str, column: Column, *, is_told: bool) -> str | None:
    """Return SQL that is true if the flag `{column}` is set.

    Return None if its type or name does not tell when it is set.
    """
    is_positive = _is_named(name, 1, column)
    if _is_named(name, 2, column) or not (is_positive or is_told or _is_named(name, 0, column)):
        return None
    if column.type == "boolean":
        return "NOT {column}" if is_positive else "{column}"
    if column.type in INTEGERS:
        return "{column} = 0" if is_positive else "{column} <> 0"
    if column.type.startswith(TIMES) and not is_positive:
        return "{column} > now()" if column.name.endswith("_until") else "{column} IS NOT NULL"
    return None


def is_mixed(found: Findings, table: str, column: Column) -> bool:
    """Return whether rows of the table, named as in SQL, differ in the column."""
    values = f"SELECT DISTINCT {quoted(column.name)}::text FROM {table} LIMIT 2"
    return (found.connection.scalar(text(f"SELECT count(*) FROM ({values}) AS few")) or 0) > 1
