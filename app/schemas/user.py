"""Users, in and out."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.media import Avatar
from app.schemas.types import NUMBER_AS_TEXT, USERNAME_RULES, Bio, DisplayName, OwnEmail, Password, Role, Text, Username


class UserIn(BaseModel):
    """A new account."""

    email: OwnEmail = Field(
        description="Your e-mail address. Only you and admins can see it, unless `PUBLIC_EMAILS` is set."
    )
    password: Annotated[Password, NUMBER_AS_TEXT]
    username: Username | None = Field(None, description=f"{USERNAME_RULES} Without it, your username is `user<id>`.")
    display_name: DisplayName | None = Field(None, description="A name to show beside the username.")
    bio: Bio | None = Field(None, description="A text about you.")
    invite: Text | None = Field(
        None, max_length=100, description="The `token` of an invite. Needed if the server requires one."
    )
    proof_of_work: Text | None = Field(
        None,
        max_length=2000,
        description="The solution of `GET /sign-up-challenge`. Needed if the server requires one.",
    )


class UserChange(BaseModel):
    """Changes of an account. Fields that are left out keep their values."""

    username: Username | None = Field(None, description=f"The new username. {USERNAME_RULES}")
    display_name: DisplayName | None = Field(None, description="The new display name. Empty removes it.")
    bio: Bio | None = Field(None, description="The new text about you. Empty removes it.")
    email: OwnEmail | None = Field(None, description="The new e-mail address. Needs `current_password`.")
    password: Password | None = Field(None, description="The new password. Needs `current_password`.")
    current_password: Text | None = Field(
        None,
        max_length=1000,
        description="Your password, for a new e-mail address or password.",
        json_schema_extra={"format": "password"},
    )
    role: Role | None = Field(None, description="The new role. Ignored unless you are an admin.")
    is_active: bool | None = Field(None, description="`false` disables the account. Ignored unless you are an admin.")


class Profile(BaseModel):
    """A user beside their posts."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the user.", examples=[1])
    username: str = Field(description="Name of the user.", examples=["ada"])
    created_at: datetime = Field(description="When the account was created.")
    email: str = Field(
        description="The real address for yourself, for admins who read the profile, and with `PUBLIC_EMAILS`. "
        "Otherwise a placeholder, `<username>@users.noreply.<host>`, which receives no mail.",
        examples=["ada@users.noreply.example.com"],
        json_schema_extra={"format": "email"},
    )


class Described(BaseModel):
    """What a user says about themselves."""

    display_name: str | None = Field(description="A name to show beside the username.", examples=["Ada L."])
    bio: str | None = Field(description="A text about the user.", examples=["I write about engines."])
    avatar: Avatar


class Counted(BaseModel):
    """Counts of an account, and whether the caller follows or has blocked it."""

    posts: int = Field(description="Number of published posts.", examples=[12])
    followers: int = Field(description="Number of users who follow the user.", examples=[3])
    following: int = Field(description="Number of users whom the user follows.", examples=[5])
    followed: bool = Field(description="Whether you follow the user. `false` for yourself.")
    blocked: bool = Field(description="Whether you have blocked the user. `false` for yourself.")


class UserProfile(Counted, Described, Profile):
    """The public profile of a user."""


class UserSummary(BaseModel):
    """A user in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the user.", examples=[1])
    username: str = Field(description="Name of the user.", examples=["ada"])
    display_name: str | None = Field(description="A name to show beside the username.", examples=["Ada L."])
    avatar: Avatar


class NewUser(Described, Profile):
    """Your new account."""

    email: str = Field(
        description="E-mail address of the account.",
        examples=["ada@example.com"],
        json_schema_extra={"format": "email"},
    )


class Account(NewUser):
    """An account, as its owner and admins see it."""

    email_verified: bool = Field(description="Whether the owner has confirmed the address with a mail.")
    role: Role
    is_active: bool = Field(description="`false`: disabled, and cannot sign in.")


class OwnAccount(Counted, Account):
    """Your account."""
