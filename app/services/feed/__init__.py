"""Reading posts: a batch checks the sessions, and reads pages, single posts and the readers' votes on them.

A batch runs one statement for each distinct page, and one for all posts by id. Readers share pages. What is personal
(`voted`, and the e-mail address in one's own posts) is added to each reader's copy.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import Connection

from app.config import MODERATING, get_settings
from app.errors import NotAuthenticated, PostNotFound
from app.security.access_tokens import AccessToken
from app.security.email_addresses import noreply_domain
from app.services.feed.pages import PageQuery, PageResult, PageRows, position_of, read_page, read_posts
from app.services.feed.serialization import for_owner, serialize

__all__ = ["Page", "PageQuery", "PageRequest", "PageResponse", "PostQuery", "position_of", "read"]


@dataclass(frozen=True, slots=True)
class PostQuery:
    """Which post."""

    post_id: int


class PageRequest(NamedTuple):
    """One request: who asks (which the turn verifies), and for what."""

    token: AccessToken
    query: PageQuery | PostQuery


class Page:
    """Posts in order, as shared by all readers, and the cursors around them.

    A page that may be large was serialized in the thread of the batch, where it was measured. Any other is serialized
    in the event loop, and only for a client that does not have it: at most 1 MB, in at most 3 ms.
    """

    def __init__(self, page_rows: PageRows) -> None:
        self.rows, self.next_cursor, self.previous_cursor, parts = page_rows
        if parts is not None:
            self.parts = parts

    @cached_property
    def digest(self) -> bytes:
        """Changes exactly when what the page shows changes; costs no serialization."""
        shown = [
            (row.id, row.version, row.votes, row.username, row.email if get_settings().public_emails else None)
            for row in self.rows
        ]
        links = (self.next_cursor is not None, self.previous_cursor is not None)
        seen = repr((shown, links, noreply_domain()))
        return hashlib.blake2b(seen.encode(errors="surrogatepass"), digest_size=8).digest()

    @cached_property
    def parts(self) -> Sequence[bytes]:
        """Each post as JSON, up to the value of its last key, `voted`."""
        return [serialize(row) for row in self.rows]

    @cached_property
    def owner_ids(self) -> frozenset[int]:
        """Those who see their own e-mail address on it; none where the page shows every address."""
        return frozenset() if get_settings().public_emails else frozenset(row.owner_id for row in self.rows)

    @cached_property
    def voter_ids(self) -> frozenset[int]:
        """Those of the readers who voted for any of the posts."""
        return frozenset(voter_id for row in self.rows for voter_id in row.voters)

    def voted(self, user_id: int) -> tuple[bool, ...]:
        """For which of its posts the reader voted."""
        if user_id not in self.voter_ids:
            return (False,) * len(self.rows)
        return tuple(user_id in row.voters for row in self.rows)


class PageResponse:
    """A page for readers who voted for the same of its posts: shared rows, and which those are.

    A reader who owns some of the posts (`owner_id`) has a reading of their own.
    """

    def __init__(self, page: Page, voted: tuple[bool, ...], owner_id: int | None = None) -> None:
        self.page, self.voted, self.owner_id = page, voted, owner_id

    @cached_property
    def etag(self) -> str:
        """The page's digest and what is personal; for a single post, begun by its version (see `If-Match`)."""
        personal = bytes(self.voted)
        if self.owner_id is not None:
            own_email = next(row.email for row in self.page.rows if row.owner_id == self.owner_id)
            personal += own_email.encode(errors="surrogatepass")
        return hashlib.blake2b(self.page.digest + personal, digest_size=8).hexdigest()

    @cached_property
    def json(self) -> bytes:
        """The posts as JSON, with commas between them: the body of a single post."""
        return b",".join(self._posts())

    @cached_property
    def json_array(self) -> bytes:
        """The posts as a JSON array: the body of a page. All readers share it, because it may have 1 MB."""
        return b"[%s]" % b",".join(self._posts())

    def _posts(self) -> list[bytes]:
        parts = self.page.parts
        if self.owner_id is not None:
            parts = [
                for_owner(part, row) if row.owner_id == self.owner_id else part
                for row, part in zip(self.page.rows, parts, strict=True)
            ]
        return [part + (b"true}" if voted else b"false}") for part, voted in zip(parts, self.voted, strict=True)]


def read(connection: Connection, questions: Sequence[PageRequest]) -> list[PageResponse | Exception]:
    """Return for each request, in order, its `PageResponse`, `NotAuthenticated`, or `PostNotFound` (also of drafts).

    The connection must be in AUTOCOMMIT, so that every statement sees what was committed before it began.
    """
    readers: dict[PageQuery, list[AccessToken]] = {}
    asked: list[tuple[AccessToken, int]] = []
    for question in questions:
        if isinstance(question.query, PageQuery):
            readers.setdefault(question.query, []).append(question.token)
        else:
            asked.append((question.token, question.query.post_id))
    answers: dict[PageQuery | PostQuery, PageResult] = {
        query: read_page(connection, query, tokens) for query, tokens in readers.items()
    }
    if asked:
        answers |= {PostQuery(post_id): answer for post_id, answer in read_posts(connection, asked).items()}
    pages = {query: Page(answer.page) for query, answer in answers.items()}
    readings: _PageResponses = {}
    return [
        _page_response(question, answers[question.query].roles, pages[question.query], readings)
        for question in questions
    ]


# One for all readers of a page who voted for the same of its posts, as most did for none; one for each owner of a post.
# Kept outside of the pages: two that know each other are rubbish that only the collector finds, with all their rows.
_PageResponses = dict[tuple[Page, tuple[bool, ...], int | None], PageResponse]


def _page_response(
    question: PageRequest, roles: Mapping[tuple[int, int], str], page: Page, readings: _PageResponses
) -> PageResponse | Exception:
    """What this reader may see of what was read for all; without a role, nothing."""
    token, query = question.token, question.query
    role = roles.get((token.session_id, token.user_id))
    if role is None:
        return NotAuthenticated()
    is_moderator = role in MODERATING
    if isinstance(query, PageQuery):
        if query.is_drafts and not is_moderator and query.owner_id != token.user_id:
            page = Page(PageRows([]))
    elif not page.rows or not (page.rows[0].published or is_moderator or page.rows[0].owner_id == token.user_id):
        return PostNotFound(query.post_id)
    place = (page, page.voted(token.user_id), token.user_id if token.user_id in page.owner_ids else None)
    if (reading := readings.get(place)) is None:
        reading = readings[place] = PageResponse(*place)
    return reading
