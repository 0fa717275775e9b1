"""Search: from words, as people type them, to posts that have them."""

from collections.abc import Sequence

from sqlalchemy import Connection, String, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY

from app.models import Post

# Sorting this many posts takes some 10 ms.
MOST_FEW = 2000

# The last word may be unfinished, and also finds what begins with it, unless it is excluded or ends a quotation. The
# pattern is a lexeme at the end that no `!` precedes.
_QUERY = cast(
    func.regexp_replace(
        cast(func.websearch_to_tsquery(cast("simple", REGCONFIG), bindparam("search", type_=String)), String),
        "(^| )('[^']*)'$",
        bindparam("last_word", type_=String),
    ),
    TSQUERY,
)
# That a post has the words; to be executed with `parameters(words)`.
MATCHES = Post.search.bool_op("@@")(_QUERY)
# The same for drafts, where no index may be used: it has the words of all drafts, and reading it takes longer for words
# that stand in drafts of others.
MATCHES_DRAFT = MATCHES.is_(True)
_ANY_FEW = select(Post.id).where(MATCHES, Post.published).limit(MOST_FEW + 1)


def parameters(words: str) -> dict[str, object]:
    """What `MATCHES` takes."""
    return {"search": words, "last_word": r"\1\2'" if words.rstrip().endswith('"') else r"\1\2':*"}


def find_few(connection: Connection, words: str) -> Sequence[int] | None:
    """The ids of all published posts with these words, in any order; None if there are more than `MOST_FEW`.

    Quick for every word: few posts come from the index, and of many the first come soon. After that, few are sorted,
    and among many the next of a list are soon met by walking it. The planner cannot be left to choose between the two:
    of a word that it has no statistics on it expects half a per cent of all posts to have it, walks the list, and for
    the rarest words goes through the whole of it.
    """
    found = connection.scalars(_ANY_FEW, parameters(words)).all()
    return found if len(found) <= MOST_FEW else None
