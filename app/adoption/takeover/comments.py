"""Takeover of comments, with their replies."""

from sqlalchemy import text

from app.adoption.choices import Choices
from app.adoption.names import name_after
from app.adoption.plan import Findings, Plan, Takeover
from app.adoption.shape import Table, quoted
from app.adoption.takeover import match
from app.adoption.takeover.match import Ours
from app.schemas.types import MAX_COMMENT_CHARACTERS
from app.services.comment import MAX_DEPTH

# The migration that creates the table.
REVISION = "0034"
CONTENT = ("content", "body", "text", "comment", "message")
PARENT = ("parent_id", "parent", "parent_comment_id", "reply_to", "reply_to_id")
UPDATED = ("updated_at", "updated_on", "modified_at", "edited_at")

# A reply refers to an older comment on the same post; other replies become comments on the post. `parent_id` is that
# of the old table. `anchor_id` is the comment to which replies to the row are attached: itself if it is taken over and
# not too deep, else the nearest such one above it.
# OFFSET 0, so that replies are looked up one by one: a chain of n replies would otherwise read the table n times.
_COPY = f"""
    INSERT INTO comments (id, post_id, parent_id, owner_id, content, depth, created_at, updated_at)
    WITH RECURSIVE tree (id, is_taken, parent_id, depth, anchor_id, anchor_depth) AS (
        SELECT id, is_taken, CAST(NULL AS bigint), 0,
            CASE WHEN is_taken THEN id END, CASE WHEN is_taken THEN 0 ELSE -1 END
        FROM replies WHERE parent_id IS NULL
        UNION ALL
        SELECT reply.id, reply.is_taken, anchor_id, anchor_depth + 1,
            CASE WHEN is_anchor THEN reply.id ELSE anchor_id END,
            CASE WHEN is_anchor THEN anchor_depth + 1 ELSE anchor_depth END
        FROM tree CROSS JOIN LATERAL (
            SELECT replies.id, replies.is_taken, replies.is_taken AND anchor_depth + 1 < {MAX_DEPTH} AS is_anchor
            FROM replies WHERE replies.parent_id = tree.id OFFSET 0
        ) AS reply
    )
    SELECT t.{{key}}, t.{{post}}, tree.parent_id, t.{{user}}, {{content}}, tree.depth, {{created}}, {{updated}}
    FROM {{table}} AS t JOIN tree ON tree.id = t.{{key}} WHERE tree.is_taken ORDER BY t.{{key}}
"""
# Their sequence may be past ids of comments that were deleted.
_NUMBER = """
    SELECT setval('comments_id_seq', last) FROM (
        SELECT greatest(
            max({key}), pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :key) AS regclass))
        ) AS last FROM {table}
    ) AS numbered WHERE last > 0
"""


def examine(found: Findings, table: Table, choices: Choices, plan: Plan, time_zone: str) -> None:
    """Plan the takeover of the table. Raises `Unclear`."""
    key = match.primary_key(table)
    posts, users = found.tables["posts"], found.tables["users"]
    post = match.required(match.reference(table, posts, found.columns["posts"]["id"].name, match.POST), "the post")
    user = match.required(match.reference(table, users, found.columns["users"]["id"].name, match.USER), "the author")
    parent = match.reference(table, table, key, PARENT)
    content = match.text_column(table, CONTENT, "the text")
    created = f"coalesce({match.time(table, match.CREATED, time_zone)}, now())"
    updated = f"greatest({created}, {match.time(table, UPDATED, time_zone)})"
    used = {key, post, user, parent, content}
    hides = match.hides(found, table, used, choices, "comments")

    names = {"key": quoted(key), "post": quoted(post), "user": quoted(user), "content": f"t.{quoted(content)}::text"}

    def source(ours: Ours, name: str) -> tuple[str, str]:
        """Return SQL for the rows, with an earlier comment that they reply to, and for the reason not to copy one."""
        rows = f"{name} AS t {ours.join_post(post)} {ours.join_user(user)}"
        if parent is not None:
            rows += (
                f" LEFT JOIN {name} AS parent ON parent.{names['key']} = t.{quoted(parent)}"
                f" AND parent.{names['key']} < t.{names['key']} AND parent.{names['post']} = t.{names['post']}"
            )
        return (
            rows,
            f"""
            CASE WHEN post.{ours.post_id} IS NULL OR person.{ours.user_id} IS NULL THEN 'without an author or post'
            WHEN t.{names["key"]} < 1 THEN 'with an id below 1'
            {match.whens(hides)}
            WHEN coalesce({names["content"]}, '') !~ '\\S' THEN 'empty'
            WHEN length({names["content"]}) > {MAX_COMMENT_CHARACTERS}
                THEN 'longer than {MAX_COMMENT_CHARACTERS:,} characters' END
        """,
        )

    rows, reason = source(Ours.before(found), quoted(table.name))
    numbers = match.count_by_reason(found, reason, rows)
    if not numbers:
        return
    after = quoted(name_after(table))
    said = match.described(numbers, "comment", table.name, name_after(table))
    if parent is not None:
        is_lost = f"t.{quoted(parent)} IS NOT NULL AND parent.{names['key']} IS NULL AND ({reason}) IS NULL"
        if lost := found.connection.scalar(text(f"SELECT count(*) FROM {rows} WHERE {is_lost}")):
            said += f"; {lost:,} of them reply to no older comment on their post, and become comments on the post"
    rows, reason = source(Ours(), after)
    parent_id = "NULL" if parent is None else f"parent.{names['key']}"
    plan.takeovers.append(
        Takeover(
            REVISION,
            said,
            (
                f"""
                CREATE TEMPORARY TABLE replies ON COMMIT DROP AS
                SELECT CAST(t.{names["key"]} AS bigint) AS id, CAST({parent_id} AS bigint) AS parent_id,
                    ({reason}) IS NULL AS is_taken
                FROM {rows}
                """,
                "CREATE INDEX ON replies (parent_id)",
                "ANALYZE replies",
                _COPY.format(table=after, created=created, updated=updated, **names),
                "DROP TABLE replies",
                _NUMBER.format(table=after, **names),
            ),
            {"table": after, "key": key},
        )
    )
