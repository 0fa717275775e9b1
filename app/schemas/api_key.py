"""API keys, in and out."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.models import Scope
from app.schemas.types import Name, Time

# The driver reads no time that is past the year 9999 in the time zone of the database.
LONGEST_LIFE = timedelta(days=36_525)


def _ordered(scopes: list[Scope]) -> list[Scope]:
    if "read" not in scopes:
        raise PydanticCustomError("scopes", 'scopes should be ["read"] or ["read", "write"]')
    return sorted(set(scopes))


def _ahead(time: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < time < now + LONGEST_LIFE:
        raise PydanticCustomError("datetime_range", "the time should be in the future, within 100 years")
    return time


Scopes = Annotated[
    list[Scope],
    Field(min_length=1, max_length=2, json_schema_extra={"contains": {"const": "read"}}, examples=[["read", "write"]]),
    AfterValidator(_ordered),
]


class ApiKeyIn(BaseModel):
    """A key to make."""

    name: Name = Field(examples=["nightly export"])
    scopes: Scopes = Field(description="`read` alone allows what changes nothing.")
    expires_at: Annotated[Time, AfterValidator(_ahead)] | None = Field(None, description="Left out: never.")


class ApiKeyOut(BaseModel):
    """A key, without the key itself."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    name: str = Field(examples=["nightly export"])
    scopes: list[Scope] = Field(examples=[["read", "write"]])
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute, or so.")


class NewApiKey(ApiKeyOut):
    """A key that was just made. It is shown this once."""

    key: str = Field(
        description="Send it as `Authorization: Bearer …` or as `X-API-Key`.",
        examples=["spk_0123456789abcdefghijklmnopqrstuvwxyzAB"],
    )
