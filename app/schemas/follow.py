"""Follows, out."""

from pydantic import BaseModel, Field


class FollowState(BaseModel):
    """Whether you follow a user, and how many users do."""

    user_id: int = Field(description="Id of the user.", examples=[1])
    followers: int = Field(description="Number of users who follow the user.", examples=[4])
    followed: bool = Field(description="Whether you follow the user.")
