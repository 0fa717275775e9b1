"""Blocks, out."""

from pydantic import BaseModel, Field


class BlockState(BaseModel):
    """Whether you have blocked a user."""

    user_id: int = Field(description="Id of the user.", examples=[1])
    blocked: bool = Field(description="Whether you have blocked the user.")
