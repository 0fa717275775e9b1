"""`/users/{id}/block` and `/users/me/blocks`: block users, and list the blocked ones."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.authentication import ScopedUser
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated, NotYourself, QuotaExceeded, UserNotFound
from app.middleware.problem_details import responses
from app.schemas.block import BlockState
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.schemas.user import UserSummary
from app.services import block

router = APIRouter(prefix="/users", tags=["people"], route_class=Route)

UserId = Annotated[Id, Path(alias="id")]


@router.put(
    "/{id}/block",
    response_model=BlockState,
    responses=responses(NotAuthenticated, UserNotFound, QuotaExceeded, NotYourself),
)
def set_block(user_id: UserId, caller: ScopedUser, db: SessionDep) -> BlockState:
    """Block a user. Idempotent.

    Lists no longer show you their posts, and neither of you follows the other any more. The user is not notified.
    """
    block.add(db, caller, user_id)
    return BlockState(user_id=user_id, blocked=True)


@router.delete(
    "/{id}/block", response_model=BlockState, responses=responses(NotAuthenticated, UserNotFound, NotYourself)
)
def remove_block(user_id: UserId, caller: ScopedUser, db: SessionDep) -> BlockState:
    """Unblock a user. Idempotent."""
    block.remove(db, caller, user_id)
    return BlockState(user_id=user_id, blocked=False)


@router.get("/me/blocks", response_model=list[UserSummary], responses=responses(NotAuthenticated, MalformedCursor))
def list_my_blocks(
    caller: ScopedUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[Any]:
    """List the users whom you have blocked, newest block first. Only you see this list."""
    page = page_of("blocks", limit=limit, cursor=cursor)
    return cut_and_link(response, page, block.list_own(db, caller, page))
