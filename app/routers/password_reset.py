"""`/password-reset`: a new password for somebody who has forgotten theirs."""

from fastapi import APIRouter
from starlette.requests import Request

from app import context, limits, passwords
from app.database import SessionDep
from app.errors import InvalidToken, TooManyTries
from app.oauth2 import CredentialsRoute
from app.problems import responses
from app.schemas.password_reset import PasswordReset, PasswordResetRequest, PasswordResetRequested
from app.services import password_reset

router = APIRouter(prefix="/password-reset", tags=["authentication"], route_class=CredentialsRoute)


@router.post("", status_code=202, response_model=PasswordResetRequested, responses=responses(TooManyTries))
def request_password_reset(wanted: PasswordResetRequest, db: SessionDep) -> PasswordResetRequested:
    """Request a password reset. If an account has this address, it gets a mail with a link.

    The answer is the same if no account has it.
    """
    limits.spend(limits.MAIL_FROM_ADDRESS, context.client_address.get() or "")
    password_reset.request(db, wanted.email)
    return PasswordResetRequested()


@router.post("/confirm", status_code=204, responses=responses(InvalidToken))
async def confirm_password_reset(wanted: PasswordReset, request: Request) -> None:
    """Set a new password with the token of the newest mail. This ends every session and API key of the account."""
    await passwords.in_hashing_thread(None, request.receive, password_reset.reset, wanted.token, wanted.password)
