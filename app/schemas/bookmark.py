"""Bookmarks, out."""

from pydantic import BaseModel, Field


class BookmarkState(BaseModel):
    """Whether you have bookmarked a post."""

    post_id: int = Field(description="Id of the post.", examples=[1])
    bookmarked: bool = Field(description="Whether you have bookmarked the post.")
