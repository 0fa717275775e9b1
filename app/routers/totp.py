"""`/users/me/totp`: the second factor of the caller's account."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app import models
from app.api.authentication import CurrentUser, DetachedUser
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.route import CredentialsRoute
from app.database.sessions import SessionDep, transaction
from app.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    NotAuthenticated,
    TooManyTries,
    TotpEnabled,
    TotpNotFound,
    WrongCode,
    WrongPassword,
)
from app.middleware.problem_details import responses
from app.schemas.totp import CodeIn, PasswordProof, RecoveryCodeList, TotpSecret, TotpState
from app.security import passwords
from app.services import totp

router = APIRouter(prefix="/users/me/totp", tags=["authentication"], route_class=CredentialsRoute)

Result = TypeVar("Result")


async def _with_password(
    request: Request, caller: models.User, proof: PasswordProof, act: Callable[[Session, models.User], Result]
) -> Result:
    """Verify the password, run `act` in a transaction, and return its result."""

    def commit() -> Result:
        totp.ask_password(caller, proof.current_password)
        with transaction() as db:
            return act(db, caller)

    return await passwords.in_hashing_thread(caller.id, request.receive, commit)


@router.get("", response_model=TotpState, responses=responses(NotAuthenticated))
def get_totp(caller: CurrentUser, db: SessionDep, response: Response) -> TotpState:
    """Get your two-factor authentication status. It says whether sign-ins need a code."""
    response.headers["Cache-Control"] = "no-store"
    return totp.state(db, caller.id)


@router.post(
    "", response_model=TotpSecret, responses=responses(NotAuthenticated, WrongPassword, TotpEnabled, TooManyTries)
)
async def create_totp(caller: DetachedUser, proof: PasswordProof, request: Request, response: Response) -> TotpSecret:
    """Start to set up two-factor authentication.

    `POST /users/me/totp/confirm` then enables it. Each call returns a new secret, and makes the one before invalid.
    """
    response.headers["Cache-Control"] = "no-store"
    return await _with_password(request, caller, proof, totp.begin)


@router.post(
    "/confirm",
    response_model=RecoveryCodeList,
    responses=responses(
        NotAuthenticated,
        WrongCode,
        TotpNotFound,
        TotpEnabled,
        TooManyTries,
        IdempotencyInProgress,
        IdempotencyMismatch,
    ),
)
def confirm_totp(entered: CodeIn, caller: CurrentUser, db: SessionDep, idempotent: IdempotentRequest) -> Response:
    """Enable two-factor authentication. From now on, signing in needs a code.

    The recovery codes are returned only in this response.
    """

    def create() -> tuple[RecoveryCodeList, None]:
        return RecoveryCodeList(recovery_codes=totp.confirm(db, caller, entered.code)), None

    return respond_once(db, idempotent, caller.id, create, status=200, is_secret=True)


@router.delete("", status_code=204, responses=responses(NotAuthenticated, WrongPassword, TotpNotFound, TooManyTries))
async def delete_totp(caller: DetachedUser, proof: PasswordProof, request: Request) -> None:
    """Disable two-factor authentication. The recovery codes stop working."""
    await _with_password(request, caller, proof, totp.remove)
