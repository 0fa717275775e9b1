"""`/invites`: create, list and delete the caller's invites."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app import models
from app.api.authentication import CurrentUser
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    InviteNotFound,
    MalformedCursor,
    NotAuthenticated,
    NotAuthorized,
    QuotaExceeded,
    TooManyTries,
)
from app.middleware.problem_details import responses
from app.schemas.invite import InviteIn, InviteOut, NewInvite
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.security import attempt_limits
from app.services import invite

router = APIRouter(prefix="/invites", tags=["users"], route_class=Route)


@router.post(
    "",
    status_code=201,
    response_model=NewInvite,
    responses=responses(
        NotAuthenticated, NotAuthorized, QuotaExceeded, TooManyTries, IdempotencyInProgress, IdempotencyMismatch
    ),
)
def create_invite(new: InviteIn, caller: CurrentUser, db: SessionDep, idempotent: IdempotentRequest) -> Response:
    """Create an invite, with which people can sign up while `REGISTRATION=invite`.

    The token is returned only in this response. Moderators and admins can create invites, and other users if the
    server allows it.
    """

    def create() -> tuple[NewInvite, None]:
        attempt_limits.spend(attempt_limits.INVITE_OF_ACCOUNT, str(caller.id))
        return invite.create(db, caller.id, new), None

    return respond_once(db, idempotent, caller.id, create, is_secret=True)


@router.get("", response_model=list[InviteOut], responses=responses(NotAuthenticated, MalformedCursor))
def list_invites(
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Sequence[models.Invite]:
    """List your invites, newest first. Expired invites are left out."""
    page = page_of("invites", limit=limit, cursor=cursor)
    return cut_and_link(response, page, invite.list_own(db, caller.id, page))


@router.delete("/{id}", status_code=204, responses=responses(NotAuthenticated, InviteNotFound))
def delete_invite(invite_id: Annotated[Id, Path(alias="id")], caller: CurrentUser, db: SessionDep) -> None:
    """Delete one of your invites. It stops working at once. Accounts that signed up with it stay."""
    invite.remove(db, caller.id, invite_id)
