"""`/email-verification`: showing that one reads the mail of one's account's address."""

from fastapi import APIRouter

from app import context, limits
from app.database import SessionDep
from app.errors import InvalidToken, NotAuthenticated, TooManyTries
from app.oauth2 import DetachedUser, Route
from app.problems import responses
from app.schemas.email_verification import EmailVerification, EmailVerificationRequested
from app.services import email_verification

router = APIRouter(prefix="/email-verification", tags=["authentication"], route_class=Route)


@router.post(
    "",
    status_code=202,
    response_model=EmailVerificationRequested,
    responses=responses(NotAuthenticated, TooManyTries),
)
def request_email_verification(caller: DetachedUser, db: SessionDep) -> EmailVerificationRequested:
    """Request a mail that verifies your e-mail address. Its link has the token for `/email-verification/confirm`."""
    # Before the session has a connection: counting takes one of its own.
    limits.spend(limits.MAIL_OF_ACCOUNT["email_verification"], str(caller.id))
    limits.spend(limits.MAIL_FROM_ADDRESS, context.client_address.get() or "")
    email_verification.request(db, caller)
    return EmailVerificationRequested()


@router.post("/confirm", status_code=204, responses=responses(InvalidToken))
def confirm_email_verification(wanted: EmailVerification, db: SessionDep) -> None:
    """Verify an e-mail address with the token of the newest mail. A change of the address makes the token invalid."""
    email_verification.verify(db, wanted.token)
