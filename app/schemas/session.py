"""Sessions, out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class SessionOut(BaseModel):
    """A session of your account: a sign-in on a device."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the session.", examples=[1])
    user_agent: str | None = Field(description="`User-Agent` of the sign-in.", examples=["curl/8.5.0"])
    address: str | None = Field(description="IP address of the sign-in.", examples=["203.0.113.7"])
    created_at: datetime = Field(description="When you signed in.")
    last_seen_at: datetime = Field(description="When the session was last used, to the minute.")
    expires_at: datetime = Field(description="When the session ends if it is not used. Using it postpones this.")
    current: bool = Field(False, description="Whether this request uses the session.")
