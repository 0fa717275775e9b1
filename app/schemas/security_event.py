"""Security events, out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.models.security_event import Details, Event


class SecurityEvent(BaseModel):
    """A security event of your account."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the event.", examples=[1])
    event: Event = Field(description="Kind of the event.", examples=["signed_in"])
    created_at: datetime = Field(description="When it happened.")
    address: str | None = Field(description="IP address that the request came from.", examples=["192.0.2.7"])
    user_agent: str | None = Field(description="`User-Agent` of the request.")
    request_id: str | None = Field(description="`X-Request-ID` of the request.")
    details: Details = Field(description="Further values, which depend on the kind of event.")
