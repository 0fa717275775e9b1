"""Reading posts: one turn answers who is calling, the page or post they ask for, and their own votes on it.

A turn serves everybody who waits: one statement for each distinct page, and one for all posts by id. Pages are shared
between users; what is personal (`voted`) is laid over each one's copy.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection

from app.config import get_settings
from app.errors import NotAuthenticated, PostNotFound
from app.schemas.post import PostOut, PostWithVotes
from app.schemas.user import Profile
from app.services.feed.pages import Answer, PageQuery, PageRows, position_of, read_page, read_posts
from app.services.feed.readers import AnyRow
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
    readers: dict[PageQuery, list[AccessToken]] = {}
    asked: list[tuple[AccessToken, int]] = []
    for question in questions:
        if isinstance(question.query, PageQuery):
            readers.setdefault(question.query, []).append(question.token)
        else:
            asked.append((question.token, question.query.post_id))
    answers: dict[PageQuery | PostQuery, Answer] = {
        query: read_page(connection, query, tokens) for query, tokens in readers.items()
    }
    if asked:
        answers |= {PostQuery(post_id): answer for post_id, answer in read_posts(connection, asked).items()}
    pages = {query: Page(answer.page) for query, answer in answers.items()}
    return [_reading(question, answers[question.query].roles, pages[question.query]) for question in questions]


def _reading(question: Question, roles: Mapping[tuple[int, int], str], page: Page) -> Reading | Exception:
    """What this reader may see of what was read for all; without a role, nothing."""
    token, query = question.token, question.query
    role = roles.get((token.session_id, token.user_id))
    if role is None:
        return NotAuthenticated()
    is_moderator = role in {"moderator", "admin"}
    if isinstance(query, PageQuery):
        if query.is_drafts and not is_moderator and query.owner_id != token.user_id:
            return Reading(Page(PageRows([])), ())
    elif not page.rows or not (page.rows[0].published or is_moderator or page.rows[0].owner_id == token.user_id):
        return PostNotFound(query.post_id)
    return Reading(page, tuple(token.user_id in row.voters for row in page.rows))


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
