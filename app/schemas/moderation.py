"""Moderation, in and out."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from app import models
from app.schemas.types import FutureTime, Reason
from app.schemas.user import UserSummary

ModerationAction = TypeAliasType(
    "ModerationAction", Annotated[models.ModerationAction, Field(description="What was done.", examples=["ban"])]
)


class BanIn(BaseModel):
    """A ban of an account."""

    reason: Reason = Field(description="Why. The user sees it.", examples=["Spam"])
    until: FutureTime | None = Field(None, description="When the ban ends; null: never.")


class BanState(BaseModel):
    """Whether an account is banned."""

    user_id: int = Field(description="Id of the user.", examples=[1])
    banned: bool = Field(description="Whether the user cannot sign in.")
    until: datetime | None = Field(description="When the ban ends; null if it has no end.")
    reason: str | None = Field(description="The reason of the ban.", examples=["Spam"])


class RemovalIn(BaseModel):
    """The removal of a post or comment."""

    reason: Reason = Field(description="Why. The author sees it.", examples=["Spam"])


class PostRemovalState(BaseModel):
    """Whether a post is removed."""

    post_id: int = Field(description="Id of the post.", examples=[1])
    removed: bool = Field(description="Whether only its author and moderators can see the post.")
    reason: str | None = Field(description="The reason of the removal.", examples=["Spam"])


class CommentRemovalState(BaseModel):
    """Whether a comment is removed."""

    comment_id: int = Field(description="Id of the comment.", examples=[1])
    removed: bool = Field(description="Whether only its author and moderators can see its text.")
    reason: str | None = Field(description="The reason of the removal.", examples=["Spam"])


class ModerationEntry(BaseModel):
    """What a moderator did. Its ids may be those of things that are deleted since."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the entry.", examples=[1])
    moderator: UserSummary | None = Field(description="Who did it; null: the operator, or a deleted account.")
    action: ModerationAction
    user_id: int | None = Field(description="Id of the banned user, or of the author of the content.", examples=[1])
    post_id: int | None = Field(description="Id of the post.", examples=[1])
    comment_id: int | None = Field(description="Id of the comment.", examples=[1])
    report_id: int | None = Field(description="Id of the report that led to it.", examples=[1])
    reason: str | None = Field(description="The reason, or the note about the report.", examples=["Spam"])
    until: datetime | None = Field(description="When the ban ends.")
    created_at: datetime = Field(description="When it was done.")
