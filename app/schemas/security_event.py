"""Security events, out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.audit import Event
from app.models.security_event import Details


class SecurityEvent(BaseModel):
    """Something that happened to one's account."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    event: Event = Field(examples=["signed_in"])
    created_at: datetime
    address: str | None = Field(description="Where the request came from.", examples=["192.0.2.7"])
    user_agent: str | None = Field(description="What the client called itself.")
    request_id: str | None = Field(description="The `X-Request-ID` of the request that did it.")
    details: Details = Field(description="More, by kind of event.")
