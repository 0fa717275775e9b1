"""Votes, in and out."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.schemas.types import Id, VoteDirection


class VoteIn(BaseModel):
    """A vote to cast or to remove."""

    model_config = ConfigDict(validate_by_name=True)

    post_id: Id = Field(description="Id of the post.")
    vote_dir: VoteDirection = Field(validation_alias=AliasChoices("vote_dir", "dir"))


# For the OpenAPI document only: `VoteIn` reads both.
class VoteInByDir(BaseModel):
    """A vote to cast or to remove, with `dir` in place of `vote_dir`."""

    post_id: Id = Field(description="Id of the post.")
    dir: VoteDirection


class VoteCounted(BaseModel):
    """What was done, and the new vote count of the post."""

    message: Literal["successfully added vote", "successfully deleted vote"] = Field(description="What was done.")
    votes: int = Field(description="Number of votes for the post.", examples=[8])


class VoteState(BaseModel):
    """Your vote, and the new vote count of the post."""

    post_id: int = Field(description="Id of the post.", examples=[1])
    votes: int = Field(description="Number of votes for the post.", examples=[8])
    voted: bool = Field(description="Whether your vote is set.")
