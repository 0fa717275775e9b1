"""Verifying an e-mail address, in and out."""

from pydantic import BaseModel, Field

from app.schemas.types import MailedToken


class EmailVerification(BaseModel):
    """The token of a verification mail."""

    token: MailedToken


class EmailVerificationRequested(BaseModel):
    """The answer to a request for a verification mail.

    It does not tell whether the address was verified before.
    """

    message: str = Field("unless it is verified already, your address is sent a mail", description="What happens next.")
