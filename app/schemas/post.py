"""Posts, in and out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.config import Sort, get_settings
from app.schemas.types import Content, Cursor, Id, Limit, SearchText, Skip, Time, Title
from app.schemas.user import Profile


class PageParameters(BaseModel):
    """Which posts, in which order, and how many."""

    model_config = ConfigDict(frozen=True)

    limit: Limit = 10
    skip: Skip = 0
    search: SearchText | None = Field(
        None,
        description='Words, "phrases", -exclusions; the last word may be unfinished. At most 1,000 bytes in UTF-8. '
        "A cursor repeats it: with `cursor`, it may be left out, and must not be another.",
    )
    sort: Sort = Field(
        get_settings().default_sort, description="By time, by votes, or by votes that weigh less with age."
    )
    owner_id: Id | None = None
    published: bool | None = Field(None, description="`false` lists one's own drafts.")
    created_after: Time | None = None
    created_before: Time | None = None
    cursor: Cursor | None = None


class PostIn(BaseModel):
    """A post to write, or to put in the place of another."""

    title: Title
    content: Content
    published: bool = Field(True, description="`false`: a draft, for the eyes of its owner and of moderators.")


class PostChange(BaseModel):
    """What to change of a post; what is left out stays."""

    title: Title | None = None
    content: Content | None = None
    published: bool | None = None


class PostOut(BaseModel):
    """A post and who wrote it."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    title: str = Field(examples=["Top beaches in Florida"])
    content: str = Field(examples=["Check out these awesome beaches"])
    published: bool
    created_at: datetime = Field(description="When the post was created or, for a draft, published first.")
    updated_at: datetime
    published_at: datetime | None = Field(description="When the post was published first; null if it never was.")
    owner_id: int = Field(examples=[1])
    owner: Profile


class PostWithVotes(BaseModel):
    """A post, how many voted for it, and whether the caller did."""

    # The tutorial's clients read this key with its capital letter.
    Post: PostOut
    votes: int = Field(examples=[7])
    voted: bool
