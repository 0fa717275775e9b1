"""Users, in and out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.models import Role
from app.schemas.types import OwnEmail, Password, Text, Username


class UserIn(BaseModel):
    """A sign-up."""

    email: OwnEmail
    password: Password
    username: Username | None = Field(None, description="`user<id>` until chosen.")


class UserChange(BaseModel):
    """What to change; what is left out stays. A new e-mail address or password needs `current_password`."""

    username: Username | None = None
    email: OwnEmail | None = None
    password: Password | None = None
    current_password: Text | None = Field(None, max_length=1000, json_schema_extra={"format": "password"})
    role: Role | None = Field(None, description="Admins only; ignored from others.")
    is_active: bool | None = Field(None, description="Admins only; ignored from others.")


class Profile(BaseModel):
    """A user as others see them.

    `email` is the real address for yourself, for admins who read the profile, and where `PUBLIC_EMAILS` is set.
    Otherwise it is a placeholder, `<username>@users.noreply.<host>`, which receives no mail.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    username: str = Field(examples=["ada"])
    created_at: datetime
    email: str = Field(examples=["ada@users.noreply.example.com"], json_schema_extra={"format": "email"})


class NewUser(Profile):
    """A user who has just signed up."""

    email: str = Field(examples=["ada@example.com"], json_schema_extra={"format": "email"})


class Account(NewUser):
    """A user as they see themselves, and as admins see them."""

    email_verified: bool = Field(description="Whether the owner has shown that they read the mail of `email`.")
    role: Role
    is_active: bool
