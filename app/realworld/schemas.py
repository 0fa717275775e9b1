"""Requests and responses of the RealWorld API."""

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app import models
from app.config import get_settings
from app.schemas.media import shown
from app.schemas.post import PostChange, PostIn
from app.schemas.types import Bio, CommentContent, Content, OwnEmail, Password, Reason, TagNames, Text, Title, Username
from app.schemas.user import UserIn

MAX_SLUG_WORDS_CHARACTERS = 100
MAX_IMAGE_CHARACTERS = 1_000
# An address, or a path as this server shows it for an avatar. No other scheme, such as `javascript:`.
_IMAGE = re.compile(r"(?:https?:/)?/[^\s\x00-\x1f\x7f\"'<>\\]+", re.IGNORECASE)
_SLUG = re.compile(r"(?:.*-)?([0-9]{1,19})", re.DOTALL)


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("blank", "can't be blank")
    return value


def _image(text: str) -> str:
    if text and not _IMAGE.fullmatch(text):
        raise PydanticCustomError("image", "should be an address that begins with http:// or https://")
    return text


NOT_BLANK = BeforeValidator(_not_blank)
Description = Annotated[Reason, NOT_BLANK]
ArticleTitle = Annotated[Title, NOT_BLANK]
ArticleBody = Annotated[Content, NOT_BLANK]
Image = Annotated[Text, Field(max_length=MAX_IMAGE_CHARACTERS), AfterValidator(_image)]


class NewUser(UserIn):
    """A new account, with a username. `invite` and `proof_of_work` are as in the main API."""

    email: Annotated[OwnEmail, NOT_BLANK]
    username: Annotated[Username, NOT_BLANK]
    password: Annotated[Password, NOT_BLANK]


class NewUserBody(BaseModel):
    """The body of `POST /users`."""

    user: NewUser


class Login(BaseModel):
    """Credentials. `otp` is for accounts with two-factor authentication."""

    email: Annotated[str, Field(max_length=320), NOT_BLANK]
    password: Annotated[str, Field(max_length=1000), NOT_BLANK]
    otp: Annotated[str, Field(max_length=64)] | None = None


class LoginBody(BaseModel):
    """The body of `POST /users/login`."""

    user: Login


class UserChanges(BaseModel):
    """Changes of an account. Fields that are left out keep their values; only the optional ones may be null."""

    email: Annotated[OwnEmail, NOT_BLANK] = ""
    username: Annotated[Username, NOT_BLANK] = ""
    password: Annotated[Password, NOT_BLANK] = ""
    bio: Bio | None = None
    image: Image | None = None


class UserChangesBody(BaseModel):
    """The body of `PUT /user`."""

    user: UserChanges


class ArticlePost(PostIn):
    """A new post with a description."""

    description: str


class ArticlePostChange(PostChange):
    """Changes of a post with a description."""

    description: str | None = None


class NewArticle(BaseModel):
    """A new article."""

    title: ArticleTitle
    description: Description
    content: ArticleBody = Field(alias="body")
    tags: TagNames = Field([], alias="tagList")


class NewArticleBody(BaseModel):
    """The body of `POST /articles`."""

    article: NewArticle


class ArticleChanges(BaseModel):
    """Changes of an article. Fields that are left out keep their values; none may be null."""

    title: ArticleTitle = ""
    description: Description = ""
    content: ArticleBody = Field("", alias="body")
    tags: TagNames = Field([], alias="tagList")


class ArticleChangesBody(BaseModel):
    """The body of `PUT /articles/{slug}`."""

    article: ArticleChanges


class NewComment(BaseModel):
    """A new comment."""

    body: Annotated[CommentContent, NOT_BLANK]


class NewCommentBody(BaseModel):
    """The body of `POST /articles/{slug}/comments`."""

    comment: NewComment


def slug_of(post_id: int, title: str) -> str:
    """Return the title in ASCII letters and digits, and the id: `how-to-train-your-dragon-7`.

    Only the id identifies the article, so links with an old title still work.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain)[:MAX_SLUG_WORDS_CHARACTERS].strip("-")
    return f"{words}-{post_id}" if words else str(post_id)


def post_id_of(slug: str) -> int:
    """Return the id of the slug's post; 0, which no post has, if it names none."""
    found = _SLUG.fullmatch(slug)
    return int(found[1]) if found else 0


def written_time(time: datetime) -> str:
    """Return the time as JavaScript writes it: in UTC, with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def shown_image(image_url: str | None, avatar: str | None) -> str | None:
    """Return the address of an account's picture: the one given here, else its avatar."""
    if image_url is not None or avatar is None:
        return image_url
    path = shown(json.loads(avatar)).url
    public_url = get_settings().public_url
    return path if public_url is None else public_url.rstrip("/") + path


def as_profile(account: models.User | Any, *, following: bool) -> dict[str, Any]:
    """Return an account, or a row with its columns, as a profile."""
    return {
        "username": account.username,
        "bio": account.bio,
        "image": shown_image(account.image_url, account.avatar),
        "following": following,
    }


def as_user(account: models.User, token: str) -> Mapping[str, Any]:
    """Return the caller's own account with their token."""
    return {
        "user": {
            "email": account.email,
            "token": token,
            "username": account.username,
            "bio": account.bio,
            "image": shown_image(account.image_url, account.avatar),
        }
    }
