"""Signing in, out."""

from typing import Literal

from pydantic import BaseModel, Field


class SignedIn(BaseModel):
    """What a client needs from now on."""

    access_token: str = Field(description="Send it as `Authorization: Bearer …`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[1800])
