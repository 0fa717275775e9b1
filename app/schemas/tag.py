"""Tags, out."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

TagSort = TypeAliasType(
    "TagSort",
    Annotated[
        Literal["popular", "name"], Field(description="By descending number of posts (`popular`), or by `name`.")
    ],
)


class TagOut(BaseModel):
    """A tag of published posts."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="Name of the tag.", examples=["street-food"])
    posts: int = Field(description="Number of published posts with the tag.", examples=[12])
    followed: bool = Field(description="Whether you follow the tag.")


class TagState(TagOut):
    """A tag with its number of followers. It may have no posts."""

    followers: int = Field(description="Number of users who follow the tag.", examples=[3])
