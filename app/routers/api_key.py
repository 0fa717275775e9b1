"""`/api-keys`: create, list and delete the caller's API keys."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.authentication import CurrentUser, Token
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    ApiKeyNotFound,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MalformedCursor,
    NotAuthenticated,
    QuotaExceeded,
)
from app.middleware.problem_details import headers, responses
from app.schemas.api_key import ApiKeyIn, ApiKeyOut, NewApiKey
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.services import api_key

router = APIRouter(prefix="/api-keys", tags=["API keys"], route_class=Route)

KeyId = Annotated[Id, Path(alias="id")]


@router.post(
    "",
    status_code=201,
    response_model=NewApiKey,
    responses={
        201: headers("Location"),
        **responses(NotAuthenticated, QuotaExceeded, IdempotencyInProgress, IdempotencyMismatch),
    },
)
def create_api_key(
    new: ApiKeyIn, token: Token, caller: CurrentUser, db: SessionDep, idempotent: IdempotentRequest, request: Request
) -> Response:
    """Create an API key. The key is returned only in this response."""

    def create() -> tuple[NewApiKey, str]:
        made = api_key.create(db, caller, token.session_id, new)
        return made, f"/api-keys/{made.id}"

    return respond_once(db, idempotent, caller.id, create, http_request=request, is_secret=True)


@router.get("", response_model=list[ApiKeyOut], responses=responses(NotAuthenticated, MalformedCursor))
def list_api_keys(
    caller: CurrentUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[ApiKeyOut]:
    """List your API keys by ascending id. Expired keys are left out."""
    page = page_of("api_keys", limit=limit, cursor=cursor)
    return cut_and_link(response, page, api_key.list_own(db, caller.id, page))


@router.get("/{id}", response_model=ApiKeyOut, responses=responses(NotAuthenticated, ApiKeyNotFound))
def get_api_key(key_id: KeyId, caller: CurrentUser, db: SessionDep) -> ApiKeyOut:
    """Get one of your API keys. The key itself is shown only once, when it is created."""
    return api_key.get(db, caller.id, key_id)


@router.delete("/{id}", status_code=204, responses=responses(NotAuthenticated, ApiKeyNotFound))
def delete_api_key(key_id: KeyId, caller: CurrentUser, db: SessionDep) -> None:
    """Delete one of your API keys. It stops working at once."""
    api_key.remove(db, caller.id, key_id)
