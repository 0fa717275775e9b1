"""Webhooks and their deliveries, in and out."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app import models
from app.security.public_urls import Refused, parse

MAX_URL_LENGTH = 2_000
WebhookEvent = TypeAliasType(
    "WebhookEvent",
    Annotated[
        Literal["comment", "notification", "post_published", "post_edited", "post_unpublished", "post_deleted"],
        Field(description="A kind of event that webhooks send."),
    ],
)
WebhookScope = TypeAliasType(
    "WebhookScope",
    Annotated[
        models.WebhookScope,
        Field(
            description="`own`: what you do, what happens to your posts, and your notifications. `all`, for admins:"
            " what happens to all posts."
        ),
    ],
)
DeliveryStatus = TypeAliasType(
    "DeliveryStatus",
    Annotated[
        models.DeliveryStatus,
        Field(description="`given_up`: after three days, or when the webhook was disabled."),
    ],
)


def _allowed(url: str) -> str:
    try:
        parse(url)
    except Refused as error:
        raise PydanticCustomError("url", "{reason}", {"reason": str(error)}) from None
    return url


WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URL_LENGTH,
        pattern=r"^https?://[!-~]+$",
        examples=["https://example.com/hooks"],
        description="Where to send events. It must be public, and https in production. Redirects are not followed.",
    ),
    AfterValidator(_allowed),
]
Events = Annotated[
    list[WebhookEvent],
    Field(min_length=1, max_length=6, examples=[["comment", "notification"]], description="Kinds of events to send."),
    AfterValidator(lambda kinds: sorted(set(kinds))),
]


class WebhookIn(BaseModel):
    """A webhook to create."""

    url: WebhookUrl
    events: Events
    scope: WebhookScope = "own"


class WebhookPatch(BaseModel):
    """Changes to a webhook. What is left out stays."""

    url: WebhookUrl | None = Field(None, description="Where to send events from now on.")
    events: Events | None = Field(None, description="Kinds of events to send from now on.")
    enabled: bool | None = Field(None, description="`false` stops it and gives up what waits; `true` goes on.")


class WebhookOut(BaseModel):
    """A webhook, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the webhook.", examples=[1])
    url: str = Field(description="Where events are sent.", examples=["https://example.com/hooks"])
    events: list[str] = Field(description="Kinds of events that are sent.", examples=[["comment"]])
    scope: WebhookScope
    enabled: bool = Field(description="Whether events are sent.")
    created_at: datetime = Field(description="When the webhook was created.")
    failing_since: datetime | None = Field(description="First failure since the last success; `null`: none.")
    disabled_at: datetime | None = Field(description="When it was disabled, by you or after three days of failures.")


class NewWebhook(WebhookOut):
    """A new webhook. Its secret is returned only in this response."""

    secret: str = Field(
        description="Verifies signatures, as Standard Webhooks describes.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class DeliveryOut(BaseModel):
    """One event for a webhook, and what came of it."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the delivery. `webhook-id` is `msg_` and this.", examples=[1])
    event: str = Field(description="Kind of the event, or `test`.", examples=["comment"])
    body: str = Field(description="What is sent.", examples=['{"type": "comment"}'])
    status: DeliveryStatus
    attempt_count: int = Field(description="Number of attempts.", examples=[1])
    created_at: datetime = Field(description="When it was queued.")
    due_at: datetime | None = Field(description="When the next attempt is due; `null`: none is.")
    attempted_at: datetime | None = Field(description="When the last attempt began.")
    response_code: int | None = Field(description="Status code of the last answer.", examples=[200])
    milliseconds: int | None = Field(description="Time that the last attempt took.", examples=[35])
    failure: str | None = Field(description="Why there was no answer.", examples=["no answer within 10 seconds"])
