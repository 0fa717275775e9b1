"""Sign-in and token refresh, in and out."""

from typing import Literal

from pydantic import BaseModel, Field


class SignedIn(BaseModel):
    """The tokens of a new or refreshed session."""

    access_token: str = Field(description="Send it as `Authorization: Bearer …`.")
    token_type: Literal["bearer"] = Field("bearer", description="Always `bearer`.")
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[1800])
    refresh_token: str = Field(description="Send it to `POST /token/refresh` for new tokens. It works once.")


class SignedInByCookie(BaseModel):
    """The answer in cookie mode.

    The credential is in the session cookie, which scripts cannot read.
    """

    expires_in: int = Field(description="Seconds until the session ends.", examples=[2_592_000])


class RefreshIn(BaseModel):
    """The refresh token to exchange."""

    refresh_token: str = Field(
        max_length=200,
        description="The newest one, from `POST /login` or `POST /token/refresh`.",
        examples=["refresh_" + "0123456789abcdef" * 4],
    )
