"""Takeover of other tables of the usual shape: their rows are copied into tables of later migrations.

The old tables stay. What is not clearly of the usual shape is not copied, and the plan says why.
"""

from collections.abc import Mapping

from app.adoption.choices import Choices
from app.adoption.plan import Findings, Plan, map_option
from app.adoption.shape import Shape, Table
from app.adoption.takeover import comments, pairs, tags
from app.adoption.takeover.match import Unclear, candidates
from app.adoption.target import TAKEN_OVER

_EXAMINE = {
    "comments": comments.examine,
    "tags": tags.examine,
    "follows": pairs.examine_follows,
    "bookmarks": pairs.examine_bookmarks,
}


def tables(here: Shape, choices: Choices, found: Mapping[str, Table]) -> list[Table]:
    """Return the tables that may be taken over, besides those in `found`."""
    possible = {meaning: candidates(here, choices, meaning, found) for meaning in TAKEN_OVER}
    posts = [found["posts"].name] if "posts" in found else []
    links = [
        table
        for table in here.tables.values()
        if table.kind == "r" and any(tags.may_link(table, {*posts, each.name}) for each in possible["tags"])
    ]
    chosen = [table for of_meaning in (*possible.values(), links) for table in of_meaning]
    return [*{table.name: table for table in chosen if table.name not in found}.values()]


def examine(found: Findings, choices: Choices, plan: Plan, time_zone: str) -> None:
    """Plan the takeovers.

    Refuse those that the operator demands and that are not possible.
    """
    if not (found.has("posts", "id") and found.has("users", "id")):
        return
    for meaning, examine_one in _EXAMINE.items():
        possible = candidates(found.shape, choices, meaning, found.tables)
        if len(possible) > 1:
            names = [table.name for table in possible]
            plan.note(
                f"{' and '.join(names)} may both have {meaning}, and neither is taken over:"
                f" {map_option(names[0], meaning)} takes over one"
            )
        for table in possible if len(possible) == 1 else ():
            try:
                examine_one(found, table, choices, plan, time_zone)
            except Unclear as reason:
                if table.name in choices.tables:
                    plan.refuse(f"{map_option(table.name, meaning)}: {reason}")
                else:
                    plan.note(f"{table.name} stays, and is not taken over as {meaning}: {reason}")
    tags.examine_array(found, choices, plan)
