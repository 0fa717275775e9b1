"""Security events, out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

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

    @field_validator("details", mode="before")
    @classmethod
    def _without_foreign_values(cls, details: object) -> object:
        """Other software can have written the row, and the column holds any JSON."""
        found = details if isinstance(details, dict) else {}
        return {name: value for name, value in found.items() if value is None or isinstance(value, str | int)}
