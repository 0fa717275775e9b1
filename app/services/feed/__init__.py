"""Reading posts: one batch authenticates callers and reads pages, posts and votes.

A batch contains all waiting requests. It has one statement for all pages of a kind, and one for all posts by id. Equal
requests share a page. Personal values (`voted`, `bookmarked`, and the e-mail address in a reader's own posts) are added
to each response, and posts of authors whom the reader has blocked are left out of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import Connection

from app.config import MODERATING, get_settings
from app.errors import NotAuthenticated, PostNotFound
from app.security.access_tokens import ANONYMOUS, AccessToken
from app.security.email_addresses import noreply_domain
from app.services.feed.lists import Kind, is_bounded, kind_of, read_pages
from app.services.feed.pages import PageQuery, PageResult, PageRows, position_of, read_page, read_posts
from app.services.feed.serialization import ENDINGS, for_owner, serialize

__all__ = ["Page", "PageQuery", "PageRequest", "PageResponse", "PostQuery", "position_of", "read"]


@dataclass(frozen=True, slots=True)
class PostQuery:
    """The query for one post."""

    post_id: int


class PageRequest(NamedTuple):
    """One request: the caller's token, which the batch authenticates, and the query.

    `network` is the caller's, if the token is `ANONYMOUS`.
    """

    token: AccessToken
    query: PageQuery | PostQuery
    network: str | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether it takes PostgreSQL a short time in every database.

        Searches, drafts and a large `skip` may take long.
        """
        return isinstance(self.query, PostQuery) or is_bounded(self.query)

    @property
    def is_home(self) -> bool:
        """Whether it is for a home page, whose cost depends on what the reader follows."""
        return isinstance(self.query, PageQuery) and self.query.order == "home"

    @property
    def caller(self) -> int | str:
        """Who shares a turn in the queues of unbounded reads and of home pages."""
        return self.network or self.token.user_id


class Page:
    """Posts in order, shared by all readers, with cursors to neighbouring pages.

    A page that may be large was serialized in the thread of the batch, to measure its size. Any other page is
    serialized in the event loop, and only if the client does not have it: at most 1 MB, in at most 3 ms.
    """

    def __init__(self, page_rows: PageRows) -> None:
        self.rows, self.next_cursor, self.previous_cursor, parts = page_rows
        if parts is not None:
            self.parts = parts

    @cached_property
    def digest(self) -> bytes:
        """A hash that changes exactly when the content of the page changes.

        It is computed without serializing the page.
        """
        has_emails = get_settings().public_emails
        shown = [
            (row.id, row.version, row.locked, row.votes, row.comments, row.username, row.email if has_emails else None)
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
        """The readers who see their own e-mail address on the page.

        There are none if `PUBLIC_EMAILS` is set, because then the page shows every address.
        """
        return frozenset() if get_settings().public_emails else frozenset(row.owner_id for row in self.rows)

    @cached_property
    def relations(self) -> "Sequence[_Relation]":
        """The readers who voted for, bookmarked, or blocked the owner of each post."""
        return [
            _Relation([row.voters for row in self.rows]),
            _Relation([row.bookmarkers or () for row in self.rows]),
            _Relation([row.blockers or () for row in self.rows]),
        ]

    def overlay(self, user_id: int, *, sees_blocked: bool) -> "Overlay":
        """Return what is personal to the reader. Blocks hide nothing from a reader who `sees_blocked` posts."""
        voters, bookmarkers, blockers = self.relations
        hidden = blockers.without() if sees_blocked else blockers.of(user_id)
        return Overlay(voters.of(user_id), bookmarkers.of(user_id), hidden)


class _Relation:
    """The readers who have a relation to each post, and to any of them."""

    def __init__(self, by_post: Sequence[Sequence[int]]) -> None:
        self.by_post = by_post
        self.of_any = frozenset(user_id for users in by_post for user_id in users)

    def of(self, user_id: int) -> tuple[bool, ...]:
        """Return for each post whether the reader has the relation."""
        return tuple(user_id in users for users in self.by_post) if user_id in self.of_any else self.without()

    def without(self) -> tuple[bool, ...]:
        return (False,) * len(self.by_post)


class Overlay(NamedTuple):
    """What is personal on a page: for each post whether the reader voted, bookmarked it, and does not see it."""

    voted: tuple[bool, ...]
    bookmarked: tuple[bool, ...]
    hidden: tuple[bool, ...]


class PageResponse:
    """A page as read by users with the same overlay.

    The rows are shared. A reader who owns some of the posts (`owner_id`) has a separate response.
    """

    def __init__(self, page: Page, overlay: Overlay, owner_id: int | None = None) -> None:
        self.page, self.overlay, self.owner_id = page, overlay, owner_id

    @cached_property
    def etag(self) -> str:
        """A hash of the page's digest and the personal values.

        `conditional` puts the version before it for a single post (see `If-Match`).
        """
        personal = b"".join(map(bytes, self.overlay))
        if self.owner_id is not None:
            own_email = next(row.email for row in self.page.rows if row.owner_id == self.owner_id)
            personal += own_email.encode(errors="surrogatepass")
        return hashlib.blake2b(self.page.digest + personal, digest_size=8).hexdigest()

    @cached_property
    def json(self) -> bytes:
        """The posts as JSON, separated by commas: the body of a single post."""
        return b",".join(self._posts())

    @cached_property
    def json_array(self) -> bytes:
        """The posts as a JSON array: the body of a page.

        It is cached for all readers of this response, because it may have 1 MB.
        """
        return b"[%s]" % b",".join(self._posts())

    def _posts(self) -> list[bytes]:
        parts = self.page.parts
        if self.owner_id is not None:
            parts = [
                for_owner(part, row) if row.owner_id == self.owner_id else part
                for row, part in zip(self.page.rows, parts, strict=True)
            ]
        return [
            part + ENDINGS[voted, bookmarked]
            for part, voted, bookmarked, is_hidden in zip(parts, *self.overlay, strict=True)
            if not is_hidden
        ]


def read(connection: Connection, requests: Sequence[PageRequest]) -> list[PageResponse | Exception]:
    """Return one outcome per request, in order.

    It is a `PageResponse`, `NotAuthenticated`, or `PostNotFound` (also for drafts). The connection must be in
    AUTOCOMMIT, so that every statement sees what was committed before it began.
    """
    tokens: dict[PageQuery, list[AccessToken]] = {}
    post_requests: list[tuple[AccessToken, int]] = []
    for request in requests:
        if isinstance(request.query, PageQuery):
            tokens.setdefault(request.query, []).append(request.token)
        else:
            post_requests.append((request.token, request.query.post_id))
    results: dict[PageQuery | PostQuery, PageResult] = {}
    kinds: dict[Kind, dict[PageQuery, list[AccessToken]]] = {}
    for query, of_query in tokens.items():
        if (kind := kind_of(query)) is None:
            results[query] = read_page(connection, query, of_query)
        else:
            kinds.setdefault(kind, {})[query] = of_query
    for kind, asked in kinds.items():
        results |= dict[PageQuery | PostQuery, PageResult](read_pages(connection, kind, asked).items())
    if post_requests:
        results |= {PostQuery(post_id): result for post_id, result in read_posts(connection, post_requests).items()}
    pages = {query: Page(result.page) for query, result in results.items()}
    responses: _PageResponses = {}
    return [
        _page_response(request, results[request.query].roles, pages[request.query], responses) for request in requests
    ]


# Readers of a page with the same overlay share one (most have voted for none). Each owner of a post has one.
# Stored outside of the pages: with references both ways, only the garbage collector would free them and their rows.
_PageResponses = dict[tuple[Page, Overlay, int | None], PageResponse]


def _page_response(
    request: PageRequest, roles: Mapping[tuple[int, int], str], page: Page, responses: _PageResponses
) -> PageResponse | Exception:
    """Return the page as this reader may see it; `NotAuthenticated` without a role."""
    token, query = request.token, request.query
    role = "anonymous" if token == ANONYMOUS else roles.get((token.session_id, token.user_id))
    if role is None:
        return NotAuthenticated()
    is_moderator = role in MODERATING
    if isinstance(query, PageQuery):
        if query.is_drafts and not is_moderator and query.owner_id != token.user_id:
            page = Page(PageRows([]))
    elif not page.rows or not (page.rows[0].published or is_moderator or page.rows[0].owner_id == token.user_id):
        return PostNotFound(query.post_id)
    overlay = page.overlay(token.user_id, sees_blocked=is_moderator)
    key = (page, overlay, token.user_id if token.user_id in page.owner_ids else None)
    if (response := responses.get(key)) is None:
        response = responses[key] = PageResponse(*key)
    return response
