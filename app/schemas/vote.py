"""Votes, in and out."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.schemas.types import Id, VoteDirection


class VoteIn(BaseModel):
    """A vote to cast (1) or to take back (0)."""

    model_config = ConfigDict(validate_by_name=True)

    post_id: Id
    vote_dir: VoteDirection = Field(
        validation_alias=AliasChoices("vote_dir", "dir"), description="1 votes, 0 takes the vote back; `dir` works too."
    )


class VoteCounted(BaseModel):
    """What was done, and the number of votes that the post has now."""

    message: Literal["successfully added vote", "successfully deleted vote"]
    votes: int = Field(examples=[8])


class VoteState(BaseModel):
    """How things stand after the vote was set or removed."""

    post_id: int = Field(examples=[1])
    votes: int = Field(examples=[8])
    voted: bool
