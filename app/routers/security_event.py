"""`/users/me/security-events`: security events of the caller's account."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app import models
from app.api import pagination
from app.api.authentication import CurrentUser
from app.api.pagination import linked
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated
from app.middleware.problem_details import responses
from app.schemas import cursor as cursors
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
    """List the security events of your account, newest first. Examples are sign-ins and password changes."""
    before_id = _before(cursor) if cursor else None
    events = security_event.list_own(db, caller.id, before_id=before_id, limit=limit + 1, skip=0 if cursor else skip)
    if len(events) > limit:
        events = events[:limit]
        following = cursors.sign(["security_events", events[-1].id])
        response.headers["Link"] = pagination.link_header(linked({"limit": limit}), next=following) or ""
    return [*events]


def _before(cursor: str) -> int:
    made_for, event_id = [*cursors.verify(cursor), None, None][:2]
    if made_for != "security_events" or not isinstance(event_id, int):
        raise MalformedCursor
    return event_id
