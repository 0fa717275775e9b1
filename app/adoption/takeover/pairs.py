"""Takeover of follows and bookmarks: each is a pair with a time."""

from collections.abc import Callable, Mapping

from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.names import name_after
from app.adoption.plan import Findings, Plan, Takeover, map_option
from app.adoption.shape import Table, quoted
from app.adoption.takeover import match
from app.adoption.takeover.match import Ours, Unclear

FOLLOWER = ("follower_id", "follower")
FOLLOWEE = ("followed_id", "followee_id", "following_id", "user_id", "followed", "followee", "following")
# Returns SQL for the joined rows of the table with this name, and for the reason not to copy one.
Rows = Callable[[Ours, str], tuple[str, str]]


def examine_follows(found: Findings, table: Table, choices: Choices, plan: Plan, time_zone: str) -> None:
    """Plan the takeover of follows. Raises `Unclear`."""
    people, key = found.tables["users"], found.columns["users"]["id"].name
    follower = match.named_reference(table, people, key, FOLLOWER, "the follower")
    followee = match.named_reference(table, people, key, FOLLOWEE, "the followed user")
    others = match.others(table, {follower, followee})
    if others and table.name not in choices.tables:
        option = map_option(table.name, "follows")
        raise Unclear(f"{', '.join(others)} may say which of them count; {option} takes all")

    def rows(ours: Ours, name: str) -> tuple[str, str]:
        return (
            f"{name} AS t {ours.join_user(follower)} {ours.join_user(followee, 'followed')}",
            f"""
            CASE WHEN person.{ours.user_id} IS NULL OR followed.{ours.user_id} IS NULL THEN 'of missing accounts'
            WHEN t.{quoted(follower)} = t.{quoted(followee)} THEN 'of themselves' END
        """,
        )

    created = match.time(table, match.CREATED, time_zone)
    _plan(found, table, plan, "follow", "0039", {"follower_id": follower, "followee_id": followee}, created, rows)


def examine_bookmarks(found: Findings, table: Table, choices: Choices, plan: Plan, time_zone: str) -> None:
    """Plan the takeover of bookmarks. Raises `Unclear`."""
    posts, users = found.tables["posts"], found.tables["users"]
    post = match.required(match.reference(table, posts, found.columns["posts"]["id"].name, match.POST), "the post")
    user = match.required(match.reference(table, users, found.columns["users"]["id"].name, match.USER), "the user")
    hides = match.hides(found, table, {post, user}, choices, "bookmarks")

    def rows(ours: Ours, name: str) -> tuple[str, str]:
        return (
            f"{name} AS t {ours.join_post(post)} {ours.join_user(user)}",
            f"""
            CASE WHEN post.{ours.post_id} IS NULL OR person.{ours.user_id} IS NULL THEN 'of missing posts or accounts'
            {match.whens(hides)} END
        """,
        )

    created = match.time(table, match.CREATED, time_zone)
    # 0041 adds the last constraint.
    _plan(found, table, plan, "bookmark", "0041", {"post_id": post, "user_id": user}, created, rows)


def _plan(
    found: Findings, table: Table, plan: Plan, noun: str, revision: str, columns: Mapping[str, str], created: str,
    rows: Rows,
) -> None:  # fmt: skip
    """Plan to copy pairs after the migration. Of equal ones, the time of the first is copied."""
    pair = ", ".join(f"t.{quoted(column)}" for column in columns.values())
    joined, reason = rows(Ours.before(found), quoted(table.name))
    counts = found.connection.execute(
        text(f"SELECT {reason} AS reason, count(*), count(DISTINCT ({pair})) FROM {joined} GROUP BY 1")
    ).all()
    if not counts:
        return
    numbers = {row[0]: row[1] for row in counts if row[0] is not None}
    for _, number, distinct in (row for row in counts if row[0] is None):
        numbers |= {None: distinct} | ({"repeated": number - distinct} if number > distinct else {})
    after = name_after(table)
    joined, reason = rows(Ours(), quoted(after))
    copy = f"""
        INSERT INTO {noun}s ({", ".join(columns)}, created_at)
        SELECT {pair}, coalesce(min({created}), now()) FROM {joined} WHERE ({reason}) IS NULL GROUP BY {pair}
    """
    plan.takeovers.append(Takeover(revision, match.described(numbers, noun, table.name, after), (copy,)))
