"""Find and repair counts that differ from the rows that they count, and lists of tags that differ from the posts.

Triggers keep them equal. This module is for databases in which triggers were switched off for a while.

Each table is read by ascending id, one statement per batch. Each statement sees rows and counts in one snapshot, so
concurrent writes cause no false differences.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

from app.database.sessions import writing
from app.database.watchdog import lift_limit

BATCH_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class _Table:
    """The counts of one table, and how to compute them anew.

    `counted` has the right values of `columns`, in their order, for the rows of `name`. If `may_lack_row`, a row
    without counts has zeros.
    """

    name: str
    stats: str
    key: str
    counted: str
    columns: tuple[str, ...]
    may_lack_row: bool = False

    @property
    def differs(self) -> str:
        right = ", ".join(f"counted.{name}" for name in self.columns)
        column = "coalesce(stats.{}, 0)" if self.may_lack_row else "stats.{}"
        stored = ", ".join(map(column.format, self.columns))
        return f"""
            FROM {self.name} LEFT JOIN {self.stats} AS stats ON stats.{self.key} = {self.name}.id
            CROSS JOIN LATERAL ({self.counted}) AS counted
            WHERE ({stored}) IS DISTINCT FROM ({right})
        """

    def batch(self) -> TextClause:
        return text(f"""
            SELECT max(id) FROM (SELECT id FROM {self.name} WHERE id > :last ORDER BY id LIMIT :rows) AS batch
        """)

    def wrong(self) -> TextClause:
        return text(f"""
            SELECT {self.name}.id {self.differs} AND {self.name}.id > :last AND {self.name}.id <= :end
            ORDER BY {self.name}.id
        """)

    def wrong_in_sample(self) -> TextClause:
        return text(f"""
            SELECT count(*) {self.differs}
                AND {self.name}.id IN (SELECT id FROM {self.name} TABLESAMPLE SYSTEM (:percent) LIMIT :rows)
        """)

    def repair(self) -> Sequence[TextClause]:
        """Return the statements that lock the rows, create missing counts, lock the counts, and correct them."""
        names = ", ".join(self.columns)
        return (
            text(f"SELECT FROM {self.name} WHERE id = ANY (:ids) ORDER BY id FOR KEY SHARE"),
            text(f"""
                INSERT INTO {self.stats} ({self.key}, {names})
                SELECT {self.name}.id, {", ".join(f"counted.{name}" for name in self.columns)}
                FROM {self.name} CROSS JOIN LATERAL ({self.counted}) AS counted
                WHERE id = ANY (:ids) AND NOT EXISTS (SELECT FROM {self.stats} WHERE {self.key} = id) ORDER BY id
                ON CONFLICT DO NOTHING
            """),
            text(f"SELECT FROM {self.stats} WHERE {self.key} = ANY (:ids) ORDER BY {self.key} FOR NO KEY UPDATE"),
            text(f"""
                WITH wrong AS (SELECT {self.name}.id, counted.* {self.differs} AND {self.name}.id = ANY (:ids)),
                repaired AS (
                    UPDATE {self.stats} SET ({names}) = ({", ".join(f"wrong.{name}" for name in self.columns)})
                    FROM wrong WHERE {self.key} = wrong.id RETURNING {self.key}
                )
                SELECT count(*) FROM repaired
            """),
        )


POSTS = _Table(
    "posts", "post_stats", "post_id",
    """
    SELECT (SELECT count(*) FROM votes WHERE votes.post_id = posts.id) AS votes,
        (
            SELECT count(*) FROM comments
            WHERE comments.post_id = posts.id AND deleted_at IS NULL AND removal_reason IS NULL
        ) AS comments,
        posts.published, posts.created_at
    """,
    ("votes", "comments", "published", "created_at"),
)  # fmt: skip
COMMENTS = _Table(
    "comments", "comment_stats", "comment_id",
    """
    SELECT (SELECT count(*) FROM comment_votes WHERE comment_votes.comment_id = comments.id) AS votes,
        (
            SELECT count(*) FROM comments AS reply
            WHERE reply.post_id = comments.post_id AND reply.parent_id = comments.id
        ) AS replies,
        comments.post_id, coalesce(comments.parent_id, 0) AS parent_key
    """,
    ("votes", "replies", "post_id", "parent_key"),
)  # fmt: skip
TAGS = _Table(
    "tags", "tag_stats", "tag_id",
    """
    SELECT (SELECT count(*) FROM post_tags WHERE post_tags.tag_id = tags.id AND post_tags.published) AS posts,
        (SELECT count(*) FROM tag_follows WHERE tag_follows.tag_id = tags.id) AS followers
    """,
    ("posts", "followers"),
)  # fmt: skip
USERS = _Table(
    "users", "user_stats", "user_id",
    """
    SELECT (SELECT count(*) FROM posts WHERE posts.owner_id = users.id AND posts.published) AS posts,
        (SELECT count(*) FROM follows WHERE follows.followee_id = users.id) AS followers,
        (SELECT count(*) FROM follows WHERE follows.follower_id = users.id) AS following
    """,
    ("posts", "followers", "following"), may_lack_row=True,
)  # fmt: skip
TABLES = (POSTS, COMMENTS, TAGS, USERS)
# Without popular tags: counting their posts takes long.
_TAGS_SAMPLE = text(f"""
    SELECT count(*) {TAGS.differs} AND tags.id IN (
        SELECT id FROM tags LEFT JOIN tag_stats ON tag_id = id
        WHERE coalesce(posts + followers, 0) <= 100 ORDER BY id DESC LIMIT :rows
    )
""")

# The row of a tag's list that a post lacks or has too many.
_LISTED_WRONGLY = """
    FROM posts WHERE EXISTS (
        SELECT FROM unnest(posts.tags) AS tag (name) FULL JOIN (
            SELECT tags.name, post_tags.published, post_tags.created_at
            FROM post_tags JOIN tags ON tags.id = post_tags.tag_id WHERE post_tags.post_id = posts.id
        ) AS listed ON listed.name = tag.name
        WHERE tag.name IS NULL
            OR (listed.published, listed.created_at) IS DISTINCT FROM (posts.published, posts.created_at)
    )
"""
_WRONG_LISTS = text(f"SELECT posts.id {_LISTED_WRONGLY} AND posts.id > :last AND posts.id <= :end ORDER BY posts.id")
_LISTS_SAMPLE = text(f"""
    SELECT count(*) {_LISTED_WRONGLY} AND posts.id IN (SELECT id FROM posts TABLESAMPLE SYSTEM (:percent) LIMIT :rows)
""")
_LOCK_TAGGED_POSTS = text("SELECT FROM posts WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE")
_CREATE_TAGS = text("SELECT create_tags(ARRAY(SELECT DISTINCT unnest(tags) FROM posts WHERE id = ANY (:ids)))")
_UNLIST = text("DELETE FROM post_tags WHERE post_id = ANY (:ids)")
_LIST = text("""
    INSERT INTO post_tags (post_id, tag_id, published, created_at)
    SELECT posts.id, tags.id, posts.published, posts.created_at
    FROM posts JOIN tags ON tags.name = ANY (posts.tags) WHERE posts.id = ANY (:ids)
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """The table, the last checked id, the ids with wrong counts, and how many were repaired."""

    table: str
    last_id: int
    wrong: list[int]
    repaired: int


def recount(*, is_repairing: bool, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Compare the lists of tags with the posts, then all counts with the rows.

    Repair what is wrong, or only report it.
    """
    for end, wrong in _batches(POSTS.batch(), _WRONG_LISTS, batch_rows):
        yield Batch(POSTS.name, end, wrong, _repair_lists(wrong) if wrong and is_repairing else 0)
    for table in TABLES:
        for end, wrong in _batches(table.batch(), table.wrong(), batch_rows):
            yield Batch(table.name, end, wrong, _repair(table, wrong) if wrong and is_repairing else 0)


def _batches(batch: TextClause, look: TextClause, rows: int) -> Iterator[tuple[int, list[int]]]:
    """Return the last id and the wrong ids of each batch."""
    last = 0
    while True:
        with writing() as connection:
            # Counting the votes of 2,000 popular posts may take longer than the time limit of a request.
            lift_limit(connection, "LOCAL")
            end = connection.scalar(batch, {"last": last, "rows": rows})
            wrong = list(connection.scalars(look, {"last": last, "end": end}))
        if end is None:
            return
        yield end, wrong
        last = end


def wrong_in_sample(connection: Connection, rows: int) -> int:
    """Return the number of wrong counts and lists in a random sample of about `rows` rows of each table.

    The sample consists of random pages of the tables. Of tags, it is the newest ones without the popular.
    """
    wrong = connection.scalar(_TAGS_SAMPLE, {"rows": rows}) or 0
    samples = (
        (POSTS, (POSTS.wrong_in_sample(), _LISTS_SAMPLE)),
        (COMMENTS, (COMMENTS.wrong_in_sample(),)),
        (USERS, (USERS.wrong_in_sample(),)),
    )
    for table, statements in samples:
        estimate = text(f"SELECT greatest(reltuples, 1) FROM pg_class WHERE oid = '{table.name}'::regclass")
        sample = {"percent": min(100.0, 100.0 * 4 * rows / (connection.scalar(estimate) or 1)), "rows": rows}
        wrong += sum(connection.scalar(statement, sample) or 0 for statement in statements)
    return wrong


def _repair(table: _Table, ids: list[int]) -> int:
    """Set these counts to the number of rows, while voting and commenting continue.

    The counts are locked first. Under the lock, each vote, post or follow is in one of two states. Either it is
    committed, so that the next statement sees it, or its trigger will count it after the lock is released.
    """
    *preparing, correct = table.repair()
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in preparing:
            connection.execute(statement, {"ids": ids})
        return connection.scalar(correct, {"ids": ids}) or 0


def _repair_lists(ids: list[int]) -> int:
    """Write the tags of these posts into the lists of their tags. Return the number of posts.

    The posts are locked, so that no writer changes their tags meanwhile. Counts are repaired after all lists.
    """
    with writing() as connection:
        lift_limit(connection, "LOCAL")
        for statement in (_LOCK_TAGGED_POSTS, _CREATE_TAGS, _UNLIST, _LIST):
            connection.execute(statement, {"ids": ids})
    return len(ids)
