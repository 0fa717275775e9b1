"""Resetting a password, in and out."""

from pydantic import BaseModel, Field

from app.schemas.types import Email, MailedToken, Password


class PasswordResetRequest(BaseModel):
    """The account whose password was forgotten."""

    email: Email = Field(description="E-mail address of the account.")


class PasswordReset(BaseModel):
    """The token of a password-reset mail, and the new password."""

    token: MailedToken
    password: Password


class PasswordResetRequested(BaseModel):
    """The answer to a request for a password reset. It is the same for every address."""

    message: str = Field(
        "if there is an account with this address, it is sent a mail", description="What happens next."
    )
