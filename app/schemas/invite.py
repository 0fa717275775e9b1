"""Invites, in and out."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.schemas.types import Time

MAX_USES = 100
DEFAULT_LIFETIME, MAX_LIFETIME = timedelta(days=7), timedelta(days=90)


def _ahead(time: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < time <= now + MAX_LIFETIME:
        raise PydanticCustomError(
            "datetime_range", "the time should be in the future, within {days} days", {"days": MAX_LIFETIME.days}
        )
    return time


class InviteIn(BaseModel):
    """An invite to create."""

    max_uses: int = Field(
        1, ge=1, le=MAX_USES, examples=[1], description="Number of accounts that can sign up with it."
    )
    expires_at: Annotated[Time, AfterValidator(_ahead)] | None = Field(
        None,
        description=f"When the invite stops working, at most {MAX_LIFETIME.days} days from now. "
        f"Without it, in {DEFAULT_LIFETIME.days} days.",
    )


class InviteOut(BaseModel):
    """An invite, without its token."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the invite.", examples=[1])
    max_uses: int = Field(description="Number of accounts that can sign up with it.", examples=[1])
    uses: int = Field(description="Number of accounts that signed up with it.", examples=[0])
    created_at: datetime = Field(description="When the invite was created.")
    expires_at: datetime = Field(description="When the invite stops working.")


class NewInvite(InviteOut):
    """A new invite. Its token is returned only in this response."""

    token: str = Field(description="Send it as `invite` of `POST /users`.", examples=["2Yl3tZ0TJvR8dW1hPq9mVw"])
