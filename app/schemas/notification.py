"""Notifications, in and out."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from app import models
from app.schemas.types import Id
from app.schemas.user import UserSummary

NotificationKind = TypeAliasType(
    "NotificationKind",
    Annotated[
        models.NotificationKind,
        Field(
            description="A reply to your comment, a comment on your post, your username in a text, a new follower, or a"
            " decision of a moderator."
        ),
    ],
)


class NotificationOut(BaseModel):
    """A notification. Its ids say what it is about."""

    id: int = Field(description="Id of the notification.", examples=[1])
    kind: NotificationKind
    actor: UserSummary | None = Field(description="Whose action it is about; null for `moderation`.")
    post_id: int | None = Field(description="Id of the post, or of the post that has the comment.", examples=[1])
    comment_id: int | None = Field(description="Id of the comment.", examples=[1])
    created_at: datetime = Field(description="When it happened.")
    read_at: datetime | None = Field(description="When you marked it as read.")


class UnreadByKind(BaseModel):
    """Numbers of unread notifications of each kind."""

    reply: int = Field(0, description="Replies to your comments.", examples=[1])
    comment: int = Field(0, description="Comments on your posts.", examples=[2])
    mention: int = Field(0, description="Mentions of your username.", examples=[0])
    follow: int = Field(0, description="New followers.", examples=[0])
    moderation: int = Field(0, description="Decisions of moderators.", examples=[0])


class UnreadCount(BaseModel):
    """Numbers of your unread notifications, of which the newest 1,000 are counted."""

    unread: int = Field(description="Number of unread notifications.", examples=[3])
    by_kind: UnreadByKind


class ReadUpTo(BaseModel):
    """The newest notification that you have seen."""

    up_to: Id = Field(description="Id of a notification. It and all older ones become read.", examples=[1])


class MuteState(BaseModel):
    """Whether you have muted a post."""

    post_id: int = Field(description="Id of the post.", examples=[1])
    muted: bool = Field(description="Whether you get no notifications about the post and its comments.")
