"""Posts, in and out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.types import Content, Title
from app.schemas.user import Profile


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
    created_at: datetime
    updated_at: datetime
    owner_id: int = Field(examples=[1])
    owner: Profile


class PostWithVotes(BaseModel):
    """A post, how many voted for it, and whether the caller did."""

    # The tutorial's clients read this key with its capital letter.
    Post: PostOut
    votes: int = Field(examples=[7])
    voted: bool
