"""Moderation, in and out."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app import models
from app.schemas.types import FutureTime, Id, Reason
from app.schemas.user import UserSummary

ModerationAction = TypeAliasType(
    "ModerationAction", Annotated[models.ModerationAction, Field(description="What was done.", examples=["ban"])]
)


ReportAction = TypeAliasType(
    "ReportAction",
    Annotated[
        models.ReportAction,
        Field(description="`dismiss` changes nothing, `remove` the content, `ban` its author.", examples=["dismiss"]),
    ],
)
ReportStatus = TypeAliasType(
    "ReportStatus", Annotated[Literal["open", "resolved"], Field(description="Whether a moderator has resolved it.")]
)


class ReportIn(BaseModel):
    """A report of a post, a comment or a user: one of the three ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"post_id": 1, "reason": "Spam"}]})

    post_id: Id | None = Field(None, description="The post to report.")
    comment_id: Id | None = Field(None, description="The comment to report.")
    user_id: Id | None = Field(None, description="The user to report.")
    reason: Reason = Field(description="Why. Only moderators see it.", examples=["Spam"])

    @model_validator(mode="after")
    def _has_one_thing(self) -> Self:
        if sum(each is not None for each in (self.post_id, self.comment_id, self.user_id)) != 1:
            raise PydanticCustomError("report", "a report has one of post_id, comment_id and user_id")
        return self


class OwnReport(BaseModel):
    """A report that you wrote."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the report.", examples=[1])
    post_id: int | None = Field(description="Id of the reported post.", examples=[1])
    comment_id: int | None = Field(description="Id of the reported comment.", examples=[1])
    user_id: int | None = Field(description="Id of the reported user.", examples=[1])
    reason: str = Field(description="Why it was reported.", examples=["Spam"])
    created_at: datetime = Field(description="When it was reported.")


class ReportOut(OwnReport):
    """A report. What it is about may be deleted since."""

    reporter: UserSummary | None = Field(description="The user who reported it; null for a deleted account.")
    resolved_at: datetime | None = Field(description="When a moderator resolved it; null while it is open.")
    resolver: UserSummary | None = Field(description="The moderator; null while it is open, or for a deleted account.")
    action: ReportAction | None = Field(description="How it was resolved; null while it is open.")
    note: str | None = Field(description="The moderator's note.")


class ResolutionIn(BaseModel):
    """How to resolve a report."""

    action: ReportAction
    note: Reason | None = Field(
        None, description="Needed to remove or ban: the author sees it as the reason.", examples=["Spam"]
    )
    until: FutureTime | None = Field(None, description="When a ban ends; null: never.")

    @model_validator(mode="after")
    def _has_reason(self) -> Self:
        if self.action != "dismiss" and self.note is None:
            raise PydanticCustomError("note", "to remove or ban, note is needed as the reason")
        return self


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
