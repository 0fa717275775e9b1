"""Pictures, in and out."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.config import get_settings
from app.schemas.types import Alt, Id

CONTENT_TYPE = "image/webp"
PATH = "/media/files/"


class MediaOut(BaseModel):
    """A picture."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the picture.", examples=[1])
    url: str = Field(
        description="Path of the picture on this server.",
        examples=["/media/files/0123456789abcdef0123456789abcdef.webp"],
    )
    preview_url: str = Field(
        description="Path of a smaller version, at most 400 pixels wide and high.",
        examples=["/media/files/0123456789abcdef0123456789abcdef-400.webp"],
    )
    width: int = Field(description="Width in pixels.", examples=[4000])
    height: int = Field(description="Height in pixels.", examples=[3000])
    alt: str | None = Field(description="What the picture shows.", examples=["Two boats on a lake"])
    blurhash: str = Field(
        description="A blurred placeholder in [BlurHash](https://blurha.sh).", examples=["LEHV6nWB2yk8pyo0adR*.7kCMdnj"]
    )
    content_type: str = Field(description="Media type of both files.", examples=[CONTENT_TYPE])
    bytes: int = Field(description="Size of both files.", examples=[482_133])


def shown(stored: Mapping[str, Any]) -> MediaOut:
    """Return a picture as the database stores it, with its addresses."""
    name = f"{get_settings().root_path or ''}{PATH}{stored['name']}"
    facts = {key: stored[key] for key in ("id", "width", "height", "alt", "blurhash", "bytes")}
    return MediaOut(**facts, url=f"{name}.webp", preview_url=f"{name}-400.webp", content_type=CONTENT_TYPE)


def _read_stored(value: Any) -> Any:
    """Replace the JSON of `posts.media` or `users.avatar` by what clients see."""
    if not isinstance(value, str):
        return value
    stored = json.loads(value)
    return [shown(each) for each in stored] if isinstance(stored, list) else shown(stored)


Pictures = Annotated[
    list[MediaOut], BeforeValidator(_read_stored), Field(description="Pictures, in the author's order.")
]
Avatar = Annotated[MediaOut | None, BeforeValidator(_read_stored), Field(description="The picture of the profile.")]


def pictures_as_json(stored: str) -> str:
    """Return the JSON of `posts.media` as clients see it."""
    return f"[{','.join(shown(each).model_dump_json() for each in json.loads(stored))}]" if stored != "[]" else stored


class MediaChange(BaseModel):
    """A change of a picture."""

    alt: Alt | None = Field(description="What the picture shows. `null` or an empty text removes it.")


class AvatarIn(BaseModel):
    """The picture of a profile."""

    media_id: Id = Field(description="Id of one of your pictures.")


class AvatarState(BaseModel):
    """The picture of your profile."""

    avatar: Avatar
