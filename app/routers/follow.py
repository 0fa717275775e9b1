"""`/users/{id}/follow`, `/followers` and `/following`: follow users, and list who follows whom."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.authentication import ScopedUser
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import Blocked, MalformedCursor, NotAuthenticated, NotYourself, QuotaExceeded, UserNotFound
from app.middleware.problem_details import responses
from app.schemas.follow import FollowState
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.schemas.user import UserSummary
from app.services import follow

router = APIRouter(prefix="/users/{id}", tags=["people"], route_class=Route)

UserId = Annotated[Id, Path(alias="id")]
LIST_ERRORS = responses(NotAuthenticated, UserNotFound, MalformedCursor)


@router.put(
    "/follow",
    response_model=FollowState,
    responses=responses(NotAuthenticated, Blocked, UserNotFound, QuotaExceeded, NotYourself),
)
def set_follow(user_id: UserId, caller: ScopedUser, db: SessionDep) -> FollowState:
    """Follow a user. Idempotent."""
    return follow.add(db, caller, user_id)


@router.delete("/follow", response_model=FollowState, responses=responses(NotAuthenticated, UserNotFound, NotYourself))
def remove_follow(user_id: UserId, caller: ScopedUser, db: SessionDep) -> FollowState:
    """Unfollow a user. Idempotent."""
    return follow.remove(db, caller, user_id)


@router.get("/followers", response_model=list[UserSummary], responses=LIST_ERRORS)
def list_followers(
    user_id: UserId,
    _: ScopedUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[Any]:
    """List the users who follow a user, newest follow first. Deleted accounts are left out."""
    page = page_of(f"followers of {user_id}", limit=limit, cursor=cursor)
    return cut_and_link(response, page, follow.list_followers(db, user_id, page))


@router.get("/following", response_model=list[UserSummary], responses=LIST_ERRORS)
def list_following(
    user_id: UserId,
    _: ScopedUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[Any]:
    """List the users whom a user follows, newest follow first. Deleted accounts are left out."""
    page = page_of(f"following of {user_id}", limit=limit, cursor=cursor)
    return cut_and_link(response, page, follow.list_following(db, user_id, page))
