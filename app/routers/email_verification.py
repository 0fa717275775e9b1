"""`/email-verification`: verify the address of an account with a mailed token."""

from fastapi import APIRouter

from app.api.authentication import DetachedUser
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import InvalidToken, NotAuthenticated, TooManyTries
from app.middleware.problem_details import responses
from app.observability import request_context
from app.schemas.email_verification import EmailVerification, EmailVerificationRequested
from app.security import attempt_limits
from app.services import email_verification

router = APIRouter(prefix="/email-verification", tags=["authentication"], route_class=Route)


@router.post(
    "",
    status_code=202,
    response_model=EmailVerificationRequested,
    responses=responses(NotAuthenticated, TooManyTries),
)
def request_email_verification(caller: DetachedUser, db: SessionDep) -> EmailVerificationRequested:
    """Request a mail that verifies your e-mail address.

    Its link has the token for `/email-verification/confirm`.
    """
    # Before `db` checks out a connection, because the attempt counter uses a separate one.
    attempt_limits.spend(attempt_limits.MAIL_OF_ACCOUNT["email_verification"], str(caller.id))
    attempt_limits.spend(attempt_limits.MAIL_FROM_ADDRESS, request_context.client_address.get() or "")
    email_verification.request(db, caller)
    return EmailVerificationRequested()


@router.post("/confirm", status_code=204, responses=responses(InvalidToken))
def confirm_email_verification(wanted: EmailVerification, db: SessionDep) -> None:
    """Verify an e-mail address with the token of the newest mail.

    A change of the address makes the token invalid.
    """
    email_verification.verify(db, wanted.token)
