"""Takeover of the tags of posts: from a table of tags and one that links posts to them, or from an array."""

import re
from collections.abc import Collection, Mapping

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.flags import is_mixed, may_hide
from app.adoption.names import name_after, plain
from app.adoption.plan import Findings, Plan, Takeover, counted, map_option
from app.adoption.shape import Table, quoted
from app.adoption.takeover import match
from app.adoption.takeover.match import Ours, Unclear
from app.schemas.types import MAX_TAGS, TagName

# The migration that gives posts their tags.
REVISION = "0035"
NAME = ("name", "title", "label")
# Usual names of the table that links them, plain. One with foreign keys to both alone may have any name.
_LINK = re.compile("(posts?tags?|tags?posts?)(links?|maps?|associations?)?")
_ARRAY = re.compile(r"(text|character varying(\(\d+\))?)\[\]")
_TAG_NAME: TypeAdapter[str] = TypeAdapter(TagName)
# The first tags of each post. Different sources may have the same normalized name. `{items}` are the posts and sources,
# with the place of each.
_CHOSEN = """
    SELECT post_id, name, row_number() OVER (PARTITION BY post_id ORDER BY min(place)) AS place
    FROM ({items}) AS item
    JOIN unnest(CAST(:sources AS text[]), CAST(:names AS text[])) AS known (source, name) USING (source)
    GROUP BY post_id, name
"""
_COUNT = f"""
    SELECT count(*) FILTER (WHERE place = 1), count(*) FILTER (WHERE place = {MAX_TAGS} + 1) FROM ({_CHOSEN}) AS chosen
"""
_UPDATE = f"""
    UPDATE posts SET tags = tagged.tags FROM (
        SELECT post_id, array_agg(name ORDER BY place) AS tags
        FROM ({_CHOSEN}) AS chosen WHERE place <= {MAX_TAGS} GROUP BY post_id
    ) AS tagged WHERE posts.id = tagged.post_id
"""


def examine(found: Findings, table: Table, choices: Choices, plan: Plan, _: str) -> None:
    """Plan the takeover of the table of tags and of the table that links posts to them. Raises `Unclear`."""
    key = match.primary_key(table)
    name = match.text_column(table, NAME, "the name")
    link = _find_link(found, table, choices)
    posts = found.tables["posts"]
    post = match.required(match.reference(link, posts, found.columns["posts"]["id"].name, match.POST), "the post")
    tag = match.required(match.reference(link, table, key, ("tag_id", "tag")), "the tag")
    for each in (table, link):
        for column in each.columns.values():
            if may_hide(column) and table.name not in choices.tables and is_mixed(found, quoted(each.name), column):
                option = map_option(table.name, "tags")
                raise Unclear(f"{each.name}.{column.name} may say which are shown; {option} takes all")

    def items(ours: Ours, name: str) -> str:
        return f"""
            SELECT t.{quoted(post)} AS post_id, t.{quoted(tag)}::text AS source,
                row_number() OVER (ORDER BY {order}) AS place
            FROM {name} AS t JOIN {ours.posts} AS post ON post.{ours.post_id} = t.{quoted(post)}
        """

    try:
        order = f"t.{quoted(match.primary_key(link))}"
    except Unclear:
        order = "t.ctid"
    names = found.connection.execute(
        text(f"SELECT {quoted(key)}::text, {quoted(name)}::text FROM {quoted(table.name)}")
    )
    _plan(
        found, plan, f"{table.name} and {link.name}", name_after(table), {row[0]: row[1] for row in names},
        items(Ours.before(found), quoted(link.name)), items(Ours(), quoted(name_after(link))),
    )  # fmt: skip


def examine_array(found: Findings, choices: Choices, plan: Plan) -> None:
    """Plan the takeover of an array `posts.tags`."""
    posts = found.tables["posts"]
    column = posts.columns.get("tags")
    if column is None or not _ARRAY.fullmatch(column.type) or choices.meaning("posts", posts, "tags") == "ignore":
        return
    former = found.former["posts", "tags"]
    if any(each.revision == REVISION for each in plan.takeovers):
        plan.note(f"{posts.name}.tags becomes {former}, and is not taken over, because a table has tags, too")
        return

    def items(table: str, key: str, tags: str) -> str:
        return f"""
            SELECT t.{key} AS post_id, item.source::text, item.place
            FROM {table} AS t CROSS JOIN unnest(t.{tags}) WITH ORDINALITY AS item (source, place)
        """

    before = items(found.name("posts"), found.name("posts", "id"), "tags")
    names = found.connection.scalars(text(f"SELECT DISTINCT source FROM ({before}) AS item WHERE source IS NOT NULL"))
    _plan(
        found, plan, f"{posts.name}.tags", f"posts.{former}", {name: name for name in names}, before,
        items("posts", "id", quoted(former)),
    )  # fmt: skip


def may_link(table: Table, both: Collection[str]) -> bool:
    """Return whether the table has a usual name, or refers to both tables and no other."""
    return _LINK.fullmatch(plain(table.name)) is not None or {key.referred for key in table.of_kind("f")} == {*both}


def _find_link(found: Findings, tags: Table, choices: Choices) -> Table:
    both = {found.tables["posts"].name, tags.name}
    taken = {table.name for table in found.tables.values()} | {tags.name, *choices.tables}
    links = [
        table
        for table in found.shape.tables.values()
        if table.kind == "r" and table.is_ours_to_alter and table.name not in taken
        and may_link(table, both)
    ]  # fmt: skip
    if len(links) != 1:
        raise Unclear(f"{' and '.join(table.name for table in links) or 'no table'} may link posts to them")
    return links[0]


def _plan(
    found: Findings, plan: Plan, source: str, stays_in: str, names: Mapping[str, str | None], before: str, after: str
) -> None:
    """Plan the takeover of tags by the names of their sources."""
    normalized = {key: name for key, raw in names.items() if (name := _normalized(raw)) is not None}
    parameters = {"sources": [*normalized], "names": [*normalized.values()]}
    number, cut = found.connection.execute(text(_COUNT.format(items=before)), parameters).one()
    if not names:
        return
    said = f"take over the tags of {counted(number, 'post')} from {source}"
    if cut:
        said += f", of {counted(cut, 'post')} the first {MAX_TAGS}"
    if odd := len(names) - len(normalized):
        said += f"; {counted(odd, 'name')} that cannot be tags stay in {stays_in} only"
    plan.takeovers.append(Takeover(REVISION, said, (_UPDATE.format(items=after),), parameters))


def _normalized(name: str | None) -> str | None:
    try:
        return _TAG_NAME.validate_python(name)
    except ValidationError:
        return None
