"""`/home`: posts of the users and tags that the caller follows."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api import batch_queues
from app.api.authentication import ScopedToken, scoped_credential
from app.api.conditional import CONDITIONAL, IF_NONE_MATCH
from app.api.fast_path import Adapter
from app.api.pagination import read_query, respond_with_page
from app.api.route import Route
from app.errors import MalformedCursor, NotAuthenticated, Overloaded
from app.middleware.problem_details import responses
from app.schemas.post import HomeParameters, PostWithVotes
from app.services import feed

router = APIRouter(prefix="/home", tags=["people"], route_class=Route)


@router.get(
    "",
    response_model=list[PostWithVotes],
    responses={**CONDITIONAL, **responses(NotAuthenticated, MalformedCursor, Overloaded)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_home(token: ScopedToken, request: Request) -> Response:
    """List the posts of users and tags that you follow, and your own, newest first.

    A post appears once, even if you follow its author and its tags. Drafts and posts of users whom you blocked are left
    out, so a page may have fewer posts than `limit`; the list ends where `Link` has no `next`. The list is empty while
    you follow nothing and have published nothing.
    """
    wanted, linked = read_query(HomeParameters, request.scope["query_string"])
    query = feed.PageQuery(
        order="home",
        limit=wanted.limit,
        reader_id=token.user_id,
        position=feed.position_of(wanted.cursor, "home") if wanted.cursor else None,
    )
    return respond_with_page(request, await batch_queues.read_page(feed.PageRequest(token, query)), linked)


async def get_home_fast(request: Request) -> Response:
    """Adapter of `get_home` for the fast path."""
    return await get_home(await scoped_credential(request), request)


FAST: dict[Callable[..., Any], Adapter] = {get_home: get_home_fast}
