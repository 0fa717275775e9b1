"""`/posts.atom`, `/users/{id}/posts.atom` and `/tags/{name}/posts.atom`: the newest posts as Atom feeds."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.api import atom, batch_queues
from app.api.atom import FeedHead
from app.api.authentication import FeedToken, network_of_anonymous
from app.api.conditional import CONDITIONAL, IF_NONE_MATCH, respond
from app.api.responses import Atom
from app.api.route import Route
from app.config import get_settings
from app.database.sessions import ConnectionLimit, transaction
from app.errors import NotAuthenticated, NotFound, Overloaded, UserNotFound
from app.middleware.problem_details import responses
from app.schemas.types import Id, TagName
from app.security.access_tokens import AccessToken
from app.services import feed, profile

router = APIRouter(tags=["feeds"], route_class=Route)

POSTS = 20
FEED: dict[str, Any] = {
    "status_code": 200,
    "response_class": Atom,
    "openapi_extra": {"parameters": [IF_NONE_MATCH]},
}
UserId = Annotated[Id, Path(alias="id")]
Name = Annotated[TagName, Path(alias="name")]
_limit = ConnectionLimit("accounts of feeds")


@router.get("/posts.atom", responses={**CONDITIONAL, **responses(NotAuthenticated, Overloaded)}, **FEED)
async def get_feed_of_posts(token: FeedToken, request: Request) -> Response:
    """Get the newest published posts as an Atom feed.

    It has 20 posts, without drafts and posts of users whom you blocked. Feed readers send an API key with the scope
    `feed` as `key`.
    """
    result = await _read(token, feed.PageQuery(order="new", limit=POSTS))
    return _respond(request, result, FeedHead("New posts", "/posts.atom", "/posts"))


@router.get(
    "/users/{id}/posts.atom", responses={**CONDITIONAL, **responses(NotAuthenticated, UserNotFound, Overloaded)}, **FEED
)
async def get_feed_of_user(user_id: UserId, token: FeedToken, request: Request) -> Response:
    """Get the newest published posts of a user as an Atom feed.

    It is like `GET /posts.atom` with the posts of one user.
    """
    result = await _read(token, feed.PageQuery(order="new", limit=POSTS, owner_id=user_id))
    rows = result.page.rows
    name = rows[0].username if rows else await _name_of(user_id)
    head = FeedHead(f"Posts of {name}", f"/users/{user_id}/posts.atom", f"/posts?owner_id={user_id}")
    return _respond(request, result, head)


@router.get(
    "/tags/{name}/posts.atom", responses={**CONDITIONAL, **responses(NotAuthenticated, NotFound, Overloaded)}, **FEED
)
async def get_feed_of_tag(name: Name, token: FeedToken, request: Request) -> Response:
    """Get the newest published posts with a tag as an Atom feed.

    It is like `GET /posts.atom` with the posts of one tag.
    """
    result = await _read(token, feed.PageQuery(order="new", limit=POSTS, tag=name))
    in_address = quote(name, safe="")
    head = FeedHead(f"Posts with the tag {name}", f"/tags/{in_address}/posts.atom", f"/posts?tag={in_address}")
    return _respond(request, result, head)


async def _read(token: AccessToken, query: feed.PageQuery) -> feed.PageResponse:
    return await batch_queues.read_page(feed.PageRequest(token, query, network_of_anonymous(token)))


async def _name_of(user_id: int) -> str:
    """Return the name of a user without published posts. Raises `UserNotFound`."""

    def read() -> str:
        with transaction() as db:
            return profile.get(db, user_id, None).account.username

    async with _limit.slot():
        return await run_in_threadpool(read)


def _respond(request: Request, result: feed.PageResponse, head: FeedHead) -> Response:
    """Respond with the feed of the posts that the caller sees. Its addresses do not contain the key."""
    site = get_settings().public_url or str(request.base_url).rstrip("/")
    hidden = result.overlay.hidden
    rows = [row for row, is_hidden in zip(result.page.rows, hidden, strict=True) if not is_hidden]
    return respond(request, result.etag, lambda: atom.render(head, rows, site), response_class=Atom)
