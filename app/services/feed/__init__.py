"""Reading posts: one turn answers who is calling, the page or post they ask for, and their own votes on it.

A turn serves everybody who waits: one statement for all sessions, one for each distinct page, one for all posts, and
one for all pairs of user and post. Pages are shared between users; what is personal (`voted`) is laid over each one's
copy.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.config import get_settings
from app.errors import NotAuthenticated, PostNotFound
from app.models import Session, User, Vote
from app.schemas.post import PostOut, PostWithVotes
from app.schemas.user import Profile
from app.services.feed.pages import AnyRow, PageQuery, PageRows, position_of, read_page, read_posts
from app.tokens import AccessToken

__all__ = ["Page", "PageQuery", "PostQuery", "Question", "Reading", "position_of", "read"]


@dataclass(frozen=True, slots=True)
class PostQuery:
    """Which post."""

    post_id: int


@dataclass(frozen=True, slots=True)
class Question:
    """One request: who asks (which the turn verifies), and for what."""

    token: AccessToken
    query: PageQuery | PostQuery


class Page:
    """Posts in order, as everybody sees them, and the cursors around them."""

    def __init__(self, page_rows: PageRows) -> None:
        self.rows, self.next_cursor, self.previous_cursor = page_rows

    @cached_property
    def digest(self) -> bytes:
        """Changes exactly when what the page shows changes; costs no serialization."""
        shown = [
            (row.id, row.version, row.votes, row.username, row.email if get_settings().public_emails else None)
            for row in self.rows
        ]
        links = (self.next_cursor is not None, self.previous_cursor is not None)
        return hashlib.blake2b(repr((shown, links)).encode(errors="surrogatepass"), digest_size=8).digest()

    @cached_property
    def parts(self) -> Sequence[bytes]:
        """Each post as JSON, up to the value of its last key, `voted`."""
        return [_serialize(row).removesuffix(b"false}") for row in self.rows]


@dataclass(frozen=True, slots=True)
class Reading:
    """A page for one reader: shared rows, and which of them they voted for."""

    page: Page
    voted: tuple[bool, ...]

    @property
    def etag(self) -> str:
        """The page's digest and the reader's votes; for a single post, begun by its version (see `If-Match`)."""
        own = "".join("1" if voted else "0" for voted in self.voted)
        return hashlib.blake2b(self.page.digest + own.encode(), digest_size=8).hexdigest()

    @property
    def items(self) -> Iterable[bytes]:
        """Each post as JSON."""
        return (
            part + (b"true}" if voted else b"false}") for part, voted in zip(self.page.parts, self.voted, strict=True)
        )


def read(connection: Connection, questions: Sequence[Question]) -> list[Reading | Exception]:
    """Answer the questions, in order: a `Reading`, `NotAuthenticated`, or `PostNotFound` (also for others' drafts).

    The connection must be in AUTOCOMMIT, so that every statement sees what was committed before it began.
    """
    roles = _roles_of_the_living(connection, questions)
    asked = {question.query for question in questions if question.token in roles}
    pages: dict[PageQuery | PostQuery, Page] = {
        query: Page(read_page(connection, query)) for query in asked if isinstance(query, PageQuery)
    }
    if posts := {query.post_id: query for query in asked if isinstance(query, PostQuery)}:
        found = read_posts(connection, posts)
        pages |= {query: Page(found.get(post_id, PageRows([]))) for post_id, query in posts.items()}
    seen: list[Page | Exception] = [_visible(question, roles, pages) for question in questions]
    voted = _votes_of(
        connection,
        {
            (question.token.user_id, row.id)
            for question, page in zip(questions, seen, strict=True)
            if isinstance(page, Page)
            for row in page.rows
        },
    )
    return [
        Reading(page, tuple((question.token.user_id, row.id) in voted for row in page.rows))
        if isinstance(page, Page)
        else page
        for question, page in zip(questions, seen, strict=True)
    ]


def _visible(
    question: Question, roles: dict[AccessToken, str], pages: dict[PageQuery | PostQuery, Page]
) -> Page | Exception:
    """What this reader may see of what was read for all."""
    token, query = question.token, question.query
    if token not in roles:
        return NotAuthenticated()
    page = pages[query]
    is_moderator = roles[token] in {"moderator", "admin"}
    if isinstance(query, PageQuery):
        return page if not query.is_drafts or is_moderator or query.owner_id == token.user_id else Page(PageRows([]))
    if not page.rows or not (page.rows[0].published or is_moderator or page.rows[0].owner_id == token.user_id):
        return PostNotFound(query.post_id)
    return page


_ALIVE = (
    select(Session.id, User.id, User.role)
    .join(User, Session.is_alive())
    .where(Session.id == bindparam("session_ids", type_=ARRAY(BIGINT)).any_())
)


def _roles_of_the_living(connection: Connection, questions: Sequence[Question]) -> dict[AccessToken, str]:
    """The role of each token whose session and account are alive."""
    tokens = {question.token for question in questions}
    alive = {
        (session_id, user_id): role
        for session_id, user_id, role in connection.execute(
            _ALIVE, {"session_ids": sorted({token.session_id for token in tokens})}
        )
    }
    return {token: alive[key] for token in tokens if (key := (token.session_id, token.user_id)) in alive}


_ASKED = (
    func.unnest(bindparam("user_ids", type_=ARRAY(BIGINT)), bindparam("post_ids", type_=ARRAY(BIGINT)))
    .table_valued("user_id", "post_id", name="asked")
    .render_derived()
)
_VOTED = select(Vote.user_id, Vote.post_id).join(
    _ASKED, (Vote.user_id == _ASKED.c.user_id) & (Vote.post_id == _ASKED.c.post_id)
)


def _votes_of(connection: Connection, pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of the (user, post) pairs for which there is a vote."""
    if not pairs:
        return set()
    user_ids, post_ids = zip(*sorted(pairs), strict=True)
    rows = connection.execute(_VOTED, {"user_ids": list(user_ids), "post_ids": list(post_ids)})
    return {(row.user_id, row.post_id) for row in rows}


def _serialize(row: AnyRow) -> bytes:
    """The row as `PostWithVotes`, with `voted` false."""
    is_public = get_settings().public_emails
    owner = Profile.model_construct(
        id=row.owner_id,
        username=row.username,
        created_at=row.owner_created_at,
        email=row.email if is_public else None,
    )
    post = PostOut.model_construct(
        id=row.id,
        title=row.title,
        content=row.content,
        published=row.published,
        created_at=row.created_at,
        updated_at=row.updated_at,
        owner_id=row.owner_id,
        owner=owner,
    )
    return PostWithVotes.model_construct(Post=post, votes=row.votes, voted=False).model_dump_json().encode()
