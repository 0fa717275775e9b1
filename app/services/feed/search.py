"""Full-text search of posts.

The same database functions (migration 0024) compute both sides of the comparison: the column `posts.search`, which a
trigger maintains, and the query. docs/decisions/0018-split-words-in-our-own-functions.md gives the details and reasons.
"""

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    String,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.config import get_settings
from app.models import Post, PostTag, Tag

# Sorting this many posts takes about 10 ms.
MAX_MATCHES = 2000


def _matches(finds_parts: ColumnElement[bool]) -> ColumnElement[bool]:
    query = func.search_query(bindparam("search", type_=String), finds_parts, type_=TSQUERY)
    return Post.search.bool_op("@@")(query)


# Condition: the post has the words. Takes `parameters(words)`. The index `posts_search_idx` has no drafts, so a search
# of own drafts compares each of them.
MATCHES = _matches(bindparam("finds_parts", type_=Boolean))
_WHOLE = (
    select(Post.id, literal(False).label("finds_parts"))
    .where(_matches(literal(False)), Post.published)
    .limit(MAX_MATCHES + 1)
    .cte("whole")
)
# Parts of words are searched only if no published post has the whole words.
_PARTS = (
    select(Post.id, literal(True))
    .where(_matches(literal(True)), Post.published, ~select(_WHOLE.c.id).exists())
    .limit(MAX_MATCHES + 1)
)
_LIMITED_MATCHES = union_all(select(_WHOLE), _PARTS)
# With `TUTORIAL_DEFAULTS`, parts of words are searched together with whole words. Any part of a title is found among
# the newest posts, like with the tutorial's LIKE. So a small database returns everything that the tutorial's would.
# Reading 10,000 titles takes about 15 ms.
MAX_TITLES_READ = 10_000
_FOUND_BY_WORDS = (
    select(Post.id, literal(True).label("by_words"))
    .where(_matches(literal(True)), Post.published)
    .limit(MAX_MATCHES + 1)
    .cte("found_by_words")
)
_NEWEST = (
    select(Post.id, Post.title, Post.created_at.label("created_at"))
    .where(Post.published)
    .order_by(Post.created_at.desc(), Post.id.desc())
    .limit(literal_column(str(MAX_TITLES_READ)))
    .subquery("newest")
)
_FOUND_IN_TITLES = (
    select(_NEWEST.c.id, literal(False))
    .where(func.strpos(_NEWEST.c.title, bindparam("search", type_=String)) > 0)
    .where(select(func.count()).select_from(_FOUND_BY_WORDS).scalar_subquery() <= MAX_MATCHES)
    .order_by(_NEWEST.c.created_at.desc(), _NEWEST.c.id.desc())
    .limit(MAX_MATCHES)
)
_ANY_FEW_OF_THE_TUTORIAL = union_all(select(_FOUND_BY_WORDS), _FOUND_IN_TITLES)


def parameters(words: str, *, finds_parts: bool = False) -> dict[str, object]:
    """Return the parameters of `MATCHES`.

    With `finds_parts`, words also match inside the words of titles.
    """
    return {"search": words, "finds_parts": finds_parts}


def find(connection: Connection, words: str) -> dict[str, object]:
    """Return the search parameters of a page's statement.

    These are the ids of all matching posts as `found`, or the parameters of `MATCHES` if more than `MAX_MATCHES` posts
    match. Both ways are fast: few ids come from the index and are sorted; among many matches, a scan of the sorted list
    soon finds the next ones. The planner cannot choose between them. Without statistics for a word, it expects half a
    per cent of all posts to match. So it would scan the whole list for a rare word.
    """
    if get_settings().tutorial_defaults:
        return _find_as_the_tutorial(connection, words)
    rows = connection.execute(_LIMITED_MATCHES, {"search": words}).all()
    if len(rows) <= MAX_MATCHES:
        return {"found": [row.id for row in rows]}
    return parameters(words, finds_parts=rows[0].finds_parts)


_TAGGED = (
    select(PostTag.post_id)
    .where(PostTag.tag_id == select(Tag.id).where(Tag.name == bindparam("tag", type_=String)).scalar_subquery())
    .where(PostTag.published)
    # So that the index is used: expecting the average number of posts of a tag, PostgreSQL would read the table.
    .order_by(PostTag.created_at.desc(), PostTag.post_id.desc())
    .limit(MAX_MATCHES + 1)
)


def find_tagged(connection: Connection, tag: str) -> dict[str, object]:
    """Return the ids of all published posts with the tag as `found`; nothing if they are more than `MAX_MATCHES`."""
    ids = connection.scalars(_TAGGED, {"tag": tag}).all()
    return {"found": ids} if len(ids) <= MAX_MATCHES else {}


def _find_as_the_tutorial(connection: Connection, words: str) -> dict[str, object]:
    """Like `find`, also for parts of words and, in the newest posts, of titles.

    If words or parts of words match more than `MAX_MATCHES` posts, only these posts are found.
    """
    rows = connection.execute(_ANY_FEW_OF_THE_TUTORIAL, {"search": words}).all()
    if sum(row.by_words for row in rows) > MAX_MATCHES:
        return parameters(words, finds_parts=True)
    return {"found": [*{row.id for row in rows}]}
