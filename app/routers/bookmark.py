"""`/posts/{id}/bookmark` and `/users/me/bookmarks`: bookmark posts, and list the bookmarked ones."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api import batch_queues
from app.api.authentication import ScopedToken, ScopedUser
from app.api.conditional import CONDITIONAL
from app.api.pagination import linked, respond_with_page
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated, Overloaded, PostNotFound, QuotaExceeded
from app.middleware.problem_details import responses
from app.schemas.bookmark import BookmarkState
from app.schemas.post import PostWithVotes
from app.schemas.types import Cursor, Id, Limit
from app.services import bookmark, feed

router = APIRouter(tags=["bookmarks"], route_class=Route)

PostId = Annotated[Id, Path(alias="id")]


@router.put(
    "/posts/{id}/bookmark",
    response_model=BookmarkState,
    responses=responses(NotAuthenticated, PostNotFound, QuotaExceeded),
)
def set_bookmark(post_id: PostId, caller: ScopedUser, db: SessionDep) -> BookmarkState:
    """Bookmark a post. Idempotent. Only you see your bookmarks."""
    bookmark.add(db, caller, post_id)
    return BookmarkState(post_id=post_id, bookmarked=True)


@router.delete(
    "/posts/{id}/bookmark", response_model=BookmarkState, responses=responses(NotAuthenticated, PostNotFound)
)
def remove_bookmark(post_id: PostId, caller: ScopedUser, db: SessionDep) -> BookmarkState:
    """Remove your bookmark from a post. Idempotent."""
    bookmark.remove(db, caller, post_id)
    return BookmarkState(post_id=post_id, bookmarked=False)


@router.get(
    "/users/me/bookmarks",
    response_model=list[PostWithVotes],
    responses={**CONDITIONAL, **responses(NotAuthenticated, MalformedCursor, Overloaded)},
)
async def list_my_bookmarks(
    token: ScopedToken,
    request: Request,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Response:
    """List the posts that you bookmarked, newest bookmark first. Drafts are left out."""
    query = feed.PageQuery(
        order="bookmarked",
        limit=limit,
        reader_id=token.user_id,
        position=feed.position_of(cursor, "bookmarked") if cursor else None,
    )
    result = await batch_queues.read_page(feed.PageRequest(token, query))
    return respond_with_page(request, result, linked({"limit": limit}))
