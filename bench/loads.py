"""The loads without sharing, and the mix of a site: which requests they send, and why.

This application sends equal pages that are requested at the same time to PostgreSQL once (request coalescing). The load
`page` gains most from that, because all its requests are equal. The loads of this file gain little or nothing: their
requests differ. All contestants get the same requests in the same order, which is random with a fixed seed.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, chain, islice
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from app.schemas import cursor as cursors
from bench.data import MAX_POSTS_IN_FILE, Dataset
from bench.environment import BenchError
from bench.scenarios import LoadName

# Return the address of the next page after this one, or None at the end of the list.
Next = Callable[[str], str | None]

THREADS: tuple[LoadName, ...] = ("thread", "thread-large", "thread-replies")
NAMES: tuple[LoadName, ...] = (
    *("distinct", "authors", "top-distinct", "search", "tag", "home", *THREADS, "comment_vote", "browse"),
)
# Each reader has a home page of their own.
HOME_PATH = "/home?limit=10"

LIMIT = 10
SEED = 7235
# The application caches 4,096 parsed queries. Lists longer than that keep the cache from helping more than on a site.
# Page numbers as in the addresses of the tutorial's clients: `skip` up to here. Deeper pages are requested by cursor.
SKIPS = 1_000
CURSORS = 5_000
AUTHORS = 5_000
SEARCHES_OF_A_KIND = 2_000
LARGEST_THREADS = 20
# A word in more posts than this is common: the posts are not sorted, but found in the sorted list.
COMMON = 2_000
# Words of app/dev/seed.py in falling frequency. Those with more than `COMMON` posts in the data set are used.
MAYBE_COMMON = "day time people way work place house year book city thing morning weekend friend food team game photo"


@dataclass(frozen=True)
class Share:
    """A kind of request of `browse`: its share in per cent, and the reason."""

    percent: int
    reason: str


# One visit in four requests is the unit: ten requests are four front pages, 1.5 next pages, three posts, one author and
# half a vote. The shares are assumptions about a site of posts and votes, not measurements of one. No request has
# `If-None-Match`, although browsers send it and the answer 304 is cheap: not every peer has it.
BROWSE: Mapping[str, Share] = {
    "front new": Share(20, "the page that the site opens with, and to which visitors return"),
    "front hot": Share(15, "the usual second tab; most sites of this kind open with it"),
    "front top": Share(5, "visited rarely, because it hardly changes"),
    "next new": Share(8, "about four of ten readers of a front page go on, and half of them each time again"),
    "next hot": Share(5, "the same, of the hot list"),
    "next top": Share(2, "the same, of the best posts"),
    "post": Share(30, "three of four front pages lead to a post, popular ones more often (Zipf)"),
    "author": Share(10, "one reader of a post in three looks at what else its author wrote"),
    "vote": Share(5, "few read and vote: one vote for six posts that were opened"),
}
BROWSE_REQUESTS = 20_000
# A reader goes on from each page with this probability, so page 3 is requested half as often as page 2.
GOES_ON = 0.5
DEEPEST_PAGE = 10
# Exponent of Zipf's law for requests of web pages: 0.64 to 0.83 in the six traces of Breslau et al., "Web Caching and
# Zipf-like Distributions" (INFOCOM 1999). The posts are ranked as on the hot list.
ZIPF_EXPONENT = 0.8
ZIPF_POSTS = 10_000


def distinct(dataset: Dataset, next_page: Next, sort: str) -> list[str]:
    """Distinct pages of a list: half by number (`skip`), half by cursor, from places all over the list."""
    first = page_path(sort)
    following = next_page(first)
    if following is None:
        raise BenchError(f"{first} has no next page")
    before, _, cursor = following.partition("cursor=")
    made_for, is_backward, _, _, *rest = cursors.verify(cursor)
    value = {"new": "created_at", "top": "votes"}[sort]
    places = dataset.rows(
        f"SELECT {value}, post_id FROM post_stats WHERE published ORDER BY hashint8(post_id) LIMIT %s", (CURSORS,)
    )
    by_cursor = [
        f"{before}cursor={cursors.sign([made_for, is_backward, _as_json(place), post_id, *rest])}"
        for place, post_id in places
    ]
    skips = _shuffled([page_path(sort, skip=skip) for skip in range(SKIPS)])
    return [path for number, path in enumerate(by_cursor) for path in (skips[number % SKIPS], path)]


def _as_json(value: datetime | int) -> str | int:
    return value.isoformat() if isinstance(value, datetime) else value


def authors(dataset: Dataset) -> list[str]:
    """Pages of authors with at least a full page of posts: a page with few posts would cost less."""
    rows = dataset.rows(
        "SELECT owner_id FROM posts WHERE published GROUP BY owner_id HAVING count(*) >= %s"
        " ORDER BY hashint8(owner_id) LIMIT %s",
        (LIMIT, AUTHORS),
    )
    return [f"/posts?limit={LIMIT}&owner_id={owner_id}" for (owner_id,) in rows]


def tags(dataset: Dataset) -> list[str]:
    """Pages of tags with at least a full page of posts."""
    rows = dataset.rows(
        "SELECT name FROM tags JOIN tag_stats ON tag_id = id WHERE posts >= %s ORDER BY hashtext(name) LIMIT %s",
        (LIMIT, AUTHORS),
    )
    return [f"/posts?{urlencode({'limit': LIMIT, 'tag': name})}" for (name,) in rows]


def threads(dataset: Dataset, name: LoadName) -> list[str]:
    """Threads of comments: of many posts with about ten, or of the posts with the most.

    The first two loads show ten comments and no replies, so that only the size of the thread differs. `thread-replies`
    has the default parameters and shows more.
    """
    narrow = "" if name == "thread-replies" else f"?limit={LIMIT}&depth=0"
    if name == "thread":
        posts, count = "comments BETWEEN 10 AND 12 ORDER BY hashint8(post_id)", AUTHORS
    else:
        posts, count = "true ORDER BY comments DESC, post_id", LARGEST_THREADS
    rows = dataset.rows(f"SELECT post_id FROM post_stats WHERE published AND {posts} LIMIT %s", (count,))
    return [f"/posts/{post_id}/comments{narrow}" for (post_id,) in rows]


def comments(dataset: Dataset) -> list[str]:
    """Return ids of comments, as many as the other votes have posts."""
    rows = dataset.rows(
        "SELECT comments.id FROM comments JOIN posts ON posts.id = post_id AND published WHERE deleted_at IS NULL"
        " ORDER BY hashint8(comments.id) LIMIT %s",
        (MAX_POSTS_IN_FILE,),
    )
    return [str(comment_id) for (comment_id,) in rows]


def searches(dataset: Dataset) -> list[str]:
    """Searches in turn for a rare word, a common word and a phrase.

    Each finds at least one post.
    """
    kinds = (_rare_words(dataset), _common_words(dataset), _phrases(dataset))
    if empty := [name for name, words in zip(("rare", "common", "phrase"), kinds, strict=True) if not words]:
        raise BenchError(f"the data set has no words for searches: {', '.join(empty)}")
    in_turn = chain.from_iterable(
        (words[number % len(words)] for words in kinds) for number in range(SEARCHES_OF_A_KIND)
    )
    return [f"/posts?{urlencode({'limit': LIMIT, 'search': words})}" for words in in_turn]


def browse(dataset: Dataset, next_page: Next) -> list[str]:
    """The mix of a site, as lines of lua/browse.lua: `GET` and a path, or `VOTE` and the id of a post."""
    dice = random.Random(SEED)
    posts = dataset.rows(
        "SELECT posts.id, posts.owner_id FROM post_stats JOIN posts ON posts.id = post_stats.post_id"
        " WHERE post_stats.published ORDER BY post_stats.hot DESC, post_stats.post_id DESC LIMIT %s",
        (ZIPF_POSTS,),
    )
    popularity = list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(len(posts))))
    walks = {sort: [*islice(_walk(page_path(sort), next_page), DEEPEST_PAGE - 1)] for sort in ("new", "hot", "top")}

    def line(kind: str) -> str:
        name, _, sort = kind.partition(" ")
        (popular,) = dice.choices(posts, cum_weights=popularity)
        match name:
            case "front":
                return f"GET\t{page_path(sort)}"
            case "next":
                depths = [GOES_ON**depth for depth in range(len(walks[sort]))]
                return f"GET\t{dice.choices(walks[sort], depths)[0]}"
            case "post":
                return f"GET\t/posts/{popular[0]}"
            case "author":
                return f"GET\t/posts?limit={LIMIT}&owner_id={popular[1]}"
            case "vote":
                return f"VOTE\t{popular[0]}"
        raise AssertionError(name)

    kinds = [kind for kind, share in BROWSE.items() for _ in range(BROWSE_REQUESTS * share.percent // 100)]
    dice.shuffle(kinds)
    return [line(kind) for kind in kinds]


def page_path(sort: str, *, limit: int = LIMIT, skip: int = 0) -> str:
    sorted_by = "" if sort == "new" else f"&sort={sort}"
    return f"/posts?limit={limit}{sorted_by}{f'&skip={skip}' if skip else ''}"


def words_of(path: str) -> str:
    """Return the words of a search."""
    return dict(parse_qsl(urlsplit(path).query))["search"]


def next_path(link: str) -> str | None:
    """Return the path of the next page in a `Link` header."""
    for part in link.split(", "):
        address, _, relation = part.partition(">; ")
        if relation == 'rel="next"':
            return urljoin("/posts", address.removeprefix("<"))
    return None


def _walk(path: str, next_page: Next) -> Iterator[str]:
    """Yield the pages after this one."""
    following = next_page(path)
    while following is not None:
        yield following
        following = next_page(following)


def _shuffled(paths: list[str]) -> list[str]:
    return random.Random(SEED).sample(paths, len(paths))


def _rare_words(dataset: Dataset) -> list[str]:
    """Words made of four syllables, which one post in twenty has at its end: hardly any occurs twice."""
    rows = dataset.rows(
        "SELECT substring(content FROM '#([a-z]+)$') FROM posts WHERE published AND content ~ '#[a-z]+$'"
        " AND id IN (SELECT id FROM posts WHERE published ORDER BY hashint8(id) LIMIT %s) ORDER BY id LIMIT %s",
        (SEARCHES_OF_A_KIND * 30, SEARCHES_OF_A_KIND),
    )
    return [word for (word,) in rows]


def _common_words(dataset: Dataset) -> list[str]:
    rows = dataset.rows(
        "SELECT word FROM unnest(%s) WITH ORDINALITY AS maybe (word, place) WHERE %s < (SELECT count(*) FROM ("
        "SELECT FROM posts WHERE published AND search @@ search_query(word, false) LIMIT %s) AS found) ORDER BY place",
        (MAYBE_COMMON.split(), COMMON, COMMON + 1),
    )
    return [word for (word,) in rows]


def _phrases(dataset: Dataset) -> list[str]:
    """The second and third word of titles, such as `"old bridge"`."""
    rows = dataset.rows(
        "SELECT DISTINCT words FROM (SELECT '\"' || (regexp_match(title, '^[a-zA-Z]+ ([a-z]+ [a-z]+)'))[1] || '\"'"
        " AS words FROM posts WHERE published ORDER BY hashint8(id) LIMIT %s) AS phrase WHERE words IS NOT NULL"
        " ORDER BY words LIMIT %s",
        (SEARCHES_OF_A_KIND * 10, SEARCHES_OF_A_KIND),
    )
    return [words for (words,) in rows]
