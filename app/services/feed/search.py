"""Search: from words, as people type them, to posts that have them.

The database makes both sides of the comparison from text, by the same functions (migration 0024): `posts.search`, which
a trigger keeps, and the query. docs/decisions/0018-split-words-in-our-own-functions.md says how and why.
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
from app.models import Post

# Sorting this many posts takes some 10 ms.
MAX_MATCHES = 2000


def _matches(finds_parts: ColumnElement[bool]) -> ColumnElement[bool]:
    query = func.search_query(bindparam("search", type_=String), finds_parts, type_=TSQUERY)
    return Post.search.bool_op("@@")(query)


# That a post has the words; to be executed with `parameters(words)`.
MATCHES = _matches(bindparam("finds_parts", type_=Boolean))
# The same for drafts, where no index may be used: it has the words of all drafts, and reading it takes longer for words
# that stand in drafts of others.
MATCHES_DRAFT = MATCHES.is_(True)
_WHOLE = (
    select(Post.id, literal(False).label("finds_parts"))
    .where(_matches(literal(False)), Post.published)
    .limit(MAX_MATCHES + 1)
    .cte("whole")
)
# Parts of words are looked up only where no published post has the words whole.
_PARTS = (
    select(Post.id, literal(True))
    .where(_matches(literal(True)), Post.published, ~select(_WHOLE.c.id).exists())
    .limit(MAX_MATCHES + 1)
)
_LIMITED_MATCHES = union_all(select(_WHOLE), _PARTS)
# With `TUTORIAL_DEFAULTS`, parts of words are looked up beside whole words, and any part of a title is found among the
# newest posts, as by the tutorial's LIKE. So a small database returns all that the tutorial's would. So many titles
# are read in some 15 ms.
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
    """What `MATCHES` takes. With `finds_parts`, words also match inside the words of titles."""
    return {"search": words, "finds_parts": finds_parts}


def find(connection: Connection, words: str) -> dict[str, object]:
    """What a page's statement takes: the ids of all posts with these words as `found`, else what `MATCHES` takes.

    They are ids unless there are more than `MAX_MATCHES`. Both ways are quick: few ids come from the
    index and are sorted; where there are many, walking the list soon meets the next ones. The
    planner cannot choose between the two: it expects half a per cent of all posts to have a word
    without statistics, so for a rare word it would walk the whole list.
    """
    if get_settings().tutorial_defaults:
        return _find_as_the_tutorial(connection, words)
    rows = connection.execute(_LIMITED_MATCHES, {"search": words}).all()
    if len(rows) <= MAX_MATCHES:
        return {"found": [row.id for row in rows]}
    return parameters(words, finds_parts=rows[0].finds_parts)


def _find_as_the_tutorial(connection: Connection, words: str) -> dict[str, object]:
    """As `find`, for words and parts of words alike, and for any part of a title among the newest posts.

    Where more than `MAX_MATCHES` posts have the words, or begin or continue them, only these are met.
    """
    rows = connection.execute(_ANY_FEW_OF_THE_TUTORIAL, {"search": words}).all()
    if sum(row.by_words for row in rows) > MAX_MATCHES:
        return parameters(words, finds_parts=True)
    return {"found": [*{row.id for row in rows}]}
