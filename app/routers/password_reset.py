"""`/password-reset`: set a new password with a mailed token."""

from fastapi import APIRouter
from starlette.requests import Request

from app.api.route import CredentialsRoute
from app.database.sessions import SessionDep
from app.errors import InvalidToken, TooManyTries
from app.middleware.problem_details import responses
from app.observability import request_context
from app.schemas.password_reset import PasswordReset, PasswordResetRequest, PasswordResetRequested
from app.security import attempt_limits, passwords
from app.services import password_reset

router = APIRouter(prefix="/password-reset", tags=["authentication"], route_class=CredentialsRoute)


@router.post("", status_code=202, response_model=PasswordResetRequested, responses=responses(TooManyTries))
def request_password_reset(wanted: PasswordResetRequest, db: SessionDep) -> PasswordResetRequested:
    """Request a password reset.

    If an account has this address, it gets a mail with a link. The answer is the same if no account has it.
    """
    attempt_limits.spend(attempt_limits.MAIL_FROM_ADDRESS, request_context.client_address.get() or "")
    password_reset.request(db, wanted.email)
    return PasswordResetRequested()


@router.post("/confirm", status_code=204, responses=responses(InvalidToken))
async def confirm_password_reset(wanted: PasswordReset, request: Request) -> None:
    """Set a new password with the token of the newest mail.

    This ends every session and API key of the account.
    """
    await passwords.in_hashing_thread(None, request.receive, password_reset.reset, wanted.token, wanted.password)
