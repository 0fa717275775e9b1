"""Sessions, out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class SessionOut(BaseModel):
    """One of one's own sign-ins."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    user_agent: str | None = Field(description="What the device called itself.", examples=["curl/8.5.0"])
    address: str | None = Field(description="Where it signed in from.", examples=["203.0.113.7"])
    created_at: datetime
    last_seen_at: datetime = Field(description="To the minute.")
    expires_at: datetime = Field(description="When it ends if it is not used; being used puts it off.")
    current: bool = Field(False, description="Whether it is the one of this request.")
