"""`/users/me/security-events`: security events of the caller's account."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app import models
from app.api.authentication import CurrentUser
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated
from app.middleware.problem_details import responses
from app.schemas.page import page_of
from app.schemas.security_event import SecurityEvent
from app.schemas.types import Cursor, Limit, Skip
from app.services import security_event

router = APIRouter(prefix="/users/me/security-events", tags=["users"], route_class=Route)


@router.get("", response_model=list[SecurityEvent], responses=responses(NotAuthenticated, MalformedCursor))
def list_my_security_events(
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    skip: Annotated[Skip, Query()] = 0,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[models.SecurityEvent]:
    """List the security events of your account, newest first.

    Examples are sign-ins and password changes.
    """
    page = page_of("security_events", limit=limit, cursor=cursor, skip=skip)
    return cut_and_link(response, page, security_event.list_own(db, caller.id, page))
