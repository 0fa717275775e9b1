"""Verifying an e-mail address, in and out."""

from pydantic import BaseModel

from app.schemas.types import MailedToken


class EmailVerification(BaseModel):
    """The token from the mail."""

    token: MailedToken


class EmailVerificationRequested(BaseModel):
    """The same whether or not the address was verified before."""

    message: str = "unless it is verified already, your address is sent a mail"
