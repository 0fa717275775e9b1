"""Posts, in and out."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.config import get_settings
from app.schemas.media import Pictures
from app.schemas.types import (
    NUMBER_AS_TEXT,
    Content,
    Cursor,
    Id,
    Limit,
    MediaIds,
    PostLimit,
    PostSkip,
    SearchText,
    Sort,
    TagName,
    TagNames,
    Time,
    Title,
)
from app.schemas.user import Profile


def _describe_default_sort(schema: JsonDict) -> None:
    schema["default"] = get_settings().default_sort


class PageParameters(BaseModel):
    """Which posts, in which order, and how many."""

    model_config = ConfigDict(frozen=True)

    limit: PostLimit = 10
    skip: PostSkip = 0
    search: SearchText | None = Field(
        None,
        description='Search by words, "phrases" and -exclusions. The last word may be incomplete. At most 1,000 bytes '
        "in UTF-8. A `cursor` contains its search: leave `search` out, or repeat the same.",
    )
    sort: Sort = Field(
        default_factory=lambda: get_settings().default_sort,
        description="Order of the posts.",
        json_schema_extra=_describe_default_sort,
    )
    owner_id: Id | None = Field(None, description="Only posts of this user.")
    tag: TagName | None = Field(None, description="Only posts with this tag.")
    published: bool | None = Field(None, description="`false` lists your drafts. Moderators can add `owner_id`.")
    created_after: Time | None = Field(None, description="Only posts created after this time.")
    created_before: Time | None = Field(None, description="Only posts created before this time.")
    cursor: Cursor | None = None


class HomeParameters(BaseModel):
    """How many posts of the home page."""

    model_config = ConfigDict(frozen=True)

    limit: Limit = 10
    cursor: Cursor | None = None


class PostIn(BaseModel):
    """The content of a new or replaced post."""

    title: Annotated[Title, NUMBER_AS_TEXT]
    content: Annotated[Content, NUMBER_AS_TEXT]
    published: bool = Field(True, description="`false` makes it a draft, which only you and moderators can see.")
    tags: TagNames = Field([], description="Tags of the post, at most five.", examples=[["travel", "street-food"]])
    media_ids: MediaIds = Field([], description="Ids of your pictures, at most four, in the order to show them.")


class PostChange(BaseModel):
    """Changes of a post. Fields that are left out keep their values."""

    title: Title | None = Field(None, description="The new title.")
    content: Content | None = Field(None, description="The new text.")
    published: bool | None = Field(None, description="`true` publishes a draft, `false` makes the post a draft.")
    tags: TagNames | None = Field(None, description="The new tags. `[]` removes all.")
    media_ids: MediaIds | None = Field(None, description="The new pictures. `[]` removes all.")


class PostOut(BaseModel):
    """A post and its owner."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the post.", examples=[1])
    title: str = Field(description="Title of the post.", examples=["Top beaches in Florida"])
    content: str = Field(description="Text of the post.", examples=["Check out these awesome beaches"])
    published: bool = Field(description="`false`: a draft.")
    created_at: datetime = Field(description="When the post was created or, for a draft, published first.")
    updated_at: datetime = Field(description="When the post was last changed.")
    published_at: datetime | None = Field(description="When the post was published first; null if it never was.")
    owner_id: int = Field(description="Id of the user who wrote the post.", examples=[1])
    owner: Profile = Field(description="The user who wrote the post.")
    tags: list[str] = Field(description="Tags of the post, in the author's order.", examples=[["travel"]])
    media: Pictures
    locked: bool = Field(description="Whether a moderator has locked the post, so that it accepts no comments.")
    removal_reason: str | None = Field(
        description="Why a moderator removed the post, so that only its author and moderators see it. Else null."
    )


class LockState(BaseModel):
    """Whether a post is locked."""

    post_id: int = Field(description="Id of the post.", examples=[1])
    locked: bool = Field(description="Whether the post accepts no comments.")


class PostWithVotes(BaseModel):
    """A post, its vote count, and whether you voted for it and bookmarked it."""

    # The tutorial's clients read this key with its capital letter.
    Post: PostOut = Field(description="The post.")
    votes: int = Field(description="Number of votes for the post.", examples=[7])
    comments: int = Field(
        description="Number of comments that are not deleted. It counts those that blocks hide.",
        examples=[3],
    )
    voted: bool = Field(description="Whether you voted for the post.")
    bookmarked: bool = Field(description="Whether you bookmarked the post.")
