"""`/sessions`: list and end the caller's sessions."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.authentication import CurrentUser, Token
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated, SessionNotFound
from app.middleware.problem_details import responses
from app.schemas.page import page_of
from app.schemas.session import SessionOut
from app.schemas.types import Cursor, Id, Limit
from app.services import session

router = APIRouter(prefix="/sessions", tags=["authentication"], route_class=Route)


@router.get("", response_model=list[SessionOut], responses=responses(NotAuthenticated, MalformedCursor))
def list_sessions(
    token: Token,
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 100,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[SessionOut]:
    """List your sessions, newest sign-in first. Each sign-in on a device is a session."""
    page = page_of("sessions", limit=limit, cursor=cursor)
    found = cut_and_link(response, page, session.list_own(db, caller.id, page))
    return [SessionOut.model_validate(one).model_copy(update={"current": one.id == token.session_id}) for one in found]


@router.delete("", status_code=204, responses=responses(NotAuthenticated))
def end_other_sessions(token: Token, caller: CurrentUser, db: SessionDep) -> None:
    """End all your sessions except the current one. Your other devices are signed out."""
    session.end_others(db, caller.id, token.session_id)


@router.delete("/{id}", status_code=204, responses=responses(NotAuthenticated, SessionNotFound))
def end_session(session_id: Annotated[Id, Path(alias="id")], caller: CurrentUser, db: SessionDep) -> None:
    """End one of your sessions. Its device is signed out."""
    session.end(db, caller.id, session_id)
