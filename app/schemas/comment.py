"""Comments, in and out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.types import CommentContent, CommentSort, Cursor, Id, Limit
from app.schemas.user import Profile

MAX_THREAD_DEPTH = 4


class ThreadParameters(BaseModel):
    """Which comments of a post, in which order, and how many."""

    model_config = ConfigDict(frozen=True)

    sort: CommentSort = Field("top", description="Order of the comments, and of the replies below each.")
    limit: Limit = 10
    parent_id: Id | None = Field(
        None, description="Only replies to this comment, all from the first; without it, those to the post."
    )
    depth: int = Field(
        2, ge=0, le=MAX_THREAD_DEPTH, description="How many levels of replies to include, at most five for a comment."
    )
    cursor: Cursor | None = None


class CommentIn(BaseModel):
    """A new comment."""

    content: CommentContent
    parent_id: Id | None = Field(None, description="The comment of the same post to reply to.")


class CommentChange(BaseModel):
    """A change of a comment."""

    content: CommentContent


class CommentOut(BaseModel):
    """A comment, its vote count, and whether you voted for it."""

    id: int = Field(description="Id of the comment.", examples=[1])
    post_id: int = Field(description="Id of the post.", examples=[1])
    parent_id: int | None = Field(description="Id of the comment that it replies to; null: it replies to the post.")
    depth: int = Field(description="0 for a reply to the post, else one more than the parent has.", examples=[0])
    content: str = Field(description="Text of the comment; empty if deleted.", examples=["What about Clearwater?"])
    author: Profile | None = Field(description="The user who wrote the comment; null if it is deleted.")
    created_at: datetime = Field(description="When the comment was created.")
    updated_at: datetime = Field(description="When the comment was last changed.")
    deleted: bool = Field(
        description="Whether the comment is deleted or removed, and only stays because of its replies."
    )
    votes: int = Field(description="Number of votes for the comment.", examples=[7])
    voted: bool = Field(description="Whether you voted for the comment.")
    reply_count: int = Field(
        description="Number of direct replies. It counts deleted ones that have replies, and those that blocks hide.",
        examples=[3],
    )
    removal_reason: str | None = Field(
        description="Why a moderator removed the comment, which only its author and moderators see. Else null."
    )


class ThreadComment(CommentOut):
    """A comment with its replies."""

    replies: list["ThreadComment"] = Field(
        description="The first replies, to the requested depth. If they are fewer than `reply_count`, `parent_id` "
        "gets all from the first. They may still be fewer, so stop where `Link` has no next."
    )


class CommentVoteState(BaseModel):
    """Your vote, and the new vote count of the comment."""

    comment_id: int = Field(description="Id of the comment.", examples=[1])
    votes: int = Field(description="Number of votes for the comment.", examples=[8])
    voted: bool = Field(description="Whether your vote is set.")
