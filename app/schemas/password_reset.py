"""Resetting a password, in and out."""

from pydantic import BaseModel

from app.schemas.types import Email, MailedToken, Password


class PasswordResetRequest(BaseModel):
    """Whose password was forgotten."""

    email: Email


class PasswordReset(BaseModel):
    """The token from the mail, and the new password."""

    token: MailedToken
    password: Password


class PasswordResetRequested(BaseModel):
    """The same for every address."""

    message: str = "if there is an account with this address, it is sent a mail"
