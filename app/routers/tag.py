"""`/tags`: list and follow tags."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.authentication import PublicUser, ScopedUser
from app.api.conditional import CONDITIONAL
from app.api.pagination import link_header, linked
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import CredentialMissing, MalformedCursor, NotAuthenticated, NotFound, QuotaExceeded
from app.middleware.problem_details import responses
from app.schemas.tag import TagOut, TagSort, TagState
from app.schemas.types import Cursor, Limit, TagName, TagPrefix
from app.security.access_tokens import ANONYMOUS
from app.services import tag

router = APIRouter(prefix="/tags", tags=["tags"], route_class=Route)

Name = Annotated[TagName, Path(alias="name")]


@router.get("", response_model=list[TagOut], responses={**CONDITIONAL, **responses(NotAuthenticated, MalformedCursor)})
def list_tags(
    caller: PublicUser,
    db: SessionDep,
    response: Response,
    prefix: Annotated[TagPrefix, Query()] = "",
    sort: Annotated[TagSort, Query(description="Order of the tags.")] = "popular",
    followed: Annotated[
        bool, Query(description="`true` lists the tags that you follow, by name, also those without posts.")
    ] = False,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[TagOut]:
    """List the tags of published posts, or those that you follow.

    In `popular`, a tag whose number of posts changes while you follow `Link` may appear twice or not at all.
    """
    if followed:
        if caller.id == ANONYMOUS.user_id:
            raise CredentialMissing
        page = tag.list_followed(db, caller, prefix=prefix, limit=limit, cursor=cursor)
    else:
        page = tag.list_tags(db, caller, prefix=prefix, sort=sort, limit=limit, cursor=cursor)
    order = {"followed": True} if followed else {"sort": sort}
    parameters = linked({"prefix": prefix or None, **order, "limit": limit})
    if (link := link_header(parameters, next=page.next_cursor)) is not None:
        response.headers["Link"] = link
    return [*page.tags]


@router.get("/{name}", response_model=TagState, responses={**CONDITIONAL, **responses(NotAuthenticated, NotFound)})
def get_tag(name: Name, caller: PublicUser, db: SessionDep) -> TagState:
    """Get a tag: its numbers of posts and followers, and whether you follow it.

    A tag that has neither is not 404: its numbers are 0.
    """
    return tag.get(db, caller, name)


@router.put("/{name}/follow", response_model=TagState, responses=responses(NotAuthenticated, NotFound, QuotaExceeded))
def follow_tag(name: Name, caller: ScopedUser, db: SessionDep) -> TagState:
    """Follow a tag. Idempotent. A tag without posts can be followed, too."""
    return tag.follow(db, caller, name)


@router.delete("/{name}/follow", response_model=TagState, responses=responses(NotAuthenticated, NotFound))
def unfollow_tag(name: Name, caller: ScopedUser, db: SessionDep) -> TagState:
    """Stop following a tag. Idempotent."""
    return tag.unfollow(db, caller, name)
