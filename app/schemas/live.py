"""Messages of live streams, and tickets for them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.notification import NotificationOut, UnreadCount
from app.schemas.types import TagNames
from app.schemas.user import UserSummary


class LivePost(BaseModel):
    """The values of a watched post that change often. A new `version` means that the post was edited."""

    votes: int = Field(description="Number of votes.", examples=[7])
    comments: int = Field(description="Number of comments.", examples=[2])
    version: int = Field(description="Grows with every edit of the post.", examples=[1])
    published: bool = Field(description="`false` for your draft.")
    locked: bool = Field(description="Whether the post accepts no comments.")


class PostMessage(BaseModel):
    """The newest values of a watched post; null if you cannot see the post, because it is deleted, for example."""

    type: Literal["post"] = "post"
    id: int = Field(description="Id of the post.", examples=[1])
    post: LivePost | None


class LiveComment(BaseModel):
    """A new comment on a watched post."""

    id: int = Field(description="Id of the comment.", examples=[1])
    post_id: int = Field(description="Id of the post.", examples=[1])
    parent_id: int | None = Field(description="Id of the comment that it replies to; null: it replies to the post.")
    depth: int = Field(description="0 for a reply to the post, else one more than the parent has.", examples=[0])
    content: str = Field(description="Text of the comment.", examples=["What about Clearwater?"])
    author: UserSummary
    created_at: datetime = Field(description="When the comment was created.")


class CommentMessage(BaseModel):
    """A comment was written on a watched post."""

    type: Literal["comment"] = "comment"
    comment: LiveComment


class PublishedPost(BaseModel):
    """A post that was published."""

    id: int = Field(description="Id of the post.", examples=[1])
    title: str = Field(description="Title of the post.", examples=["Top beaches in Florida"])
    tags: TagNames = Field(description="Tags of the post.")
    owner: UserSummary
    created_at: datetime = Field(description="When the post was created.")


class PublishedMessage(BaseModel):
    """A post was published, perhaps again, for the topics `new` and `tag:NAME`."""

    type: Literal["published"] = "published"
    post: PublishedPost


class NotificationMessage(BaseModel):
    """You got a notification, for the topic `me`."""

    type: Literal["notification"] = "notification"
    notification: NotificationOut


class UnreadMessage(UnreadCount):
    """Your unread notifications, for the topic `me`."""

    type: Literal["unread"] = "unread"


class StateMessage(BaseModel):
    """The newest values of all that the stream watches: its first message, and the answer to `watch`."""

    type: Literal["state"] = "state"
    posts: list[PostMessage]
    unread: UnreadMessage | None = Field(description="Null without the topic `me`.")


class ResetMessage(BaseModel):
    """Comments, posts and notifications since `Last-Event-ID` may be missing: read them again."""

    type: Literal["reset"] = "reset"


class ProblemMessage(BaseModel):
    """A message of yours was not understood, or asks for too much. For WebSockets."""

    type: Literal["problem"] = "problem"
    detail: str = Field(description="What was wrong.")


class EndMessage(BaseModel):
    """The stream ends.

    After `session_ended`, sign in. After `expired` and `stopping`, connect again.
    """

    type: Literal["end"] = "end"
    reason: Literal["session_ended", "expired", "stopping"]


Message = (
    StateMessage | PostMessage | CommentMessage | PublishedMessage | NotificationMessage | UnreadMessage | ResetMessage
    | ProblemMessage | EndMessage
)  # fmt: skip


class NewTicket(BaseModel):
    """A ticket for one connection to `/live`."""

    ticket: str = Field(description="The value of the parameter `ticket` of `/live`.")
    expires_in: int = Field(description="Seconds in which it can be used, once.", examples=[30])
