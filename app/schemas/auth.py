"""Signing in, refreshing."""

from typing import Literal

from pydantic import BaseModel, Field


class SignedIn(BaseModel):
    """What a client needs from now on."""

    access_token: str = Field(description="Send it as `Authorization: Bearer …`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[1800])
    refresh_token: str = Field(
        description="Send it to `POST /token/refresh`, once, for a new pair: before the access token expires, or after."
    )


class SignedInByCookie(BaseModel):
    """The credential is in the cookie, where scripts cannot read it."""

    expires_in: int = Field(description="Seconds until the session ends for good.", examples=[2_592_000])


class RefreshIn(BaseModel):
    """The newest refresh token that the client was given."""

    refresh_token: str = Field(max_length=200, description="From `POST /login`, or from the last refresh.")
