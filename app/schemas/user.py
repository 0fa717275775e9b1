"""Users, in and out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.models import Role
from app.schemas.types import Email, Password, Text, Username


class UserIn(BaseModel):
    """A sign-up."""

    email: Email
    password: Password
    username: Username | None = Field(None, description="`user<id>` until chosen.")


class UserChange(BaseModel):
    """What to change; what is left out stays. A new e-mail address or password needs `current_password`."""

    username: Username | None = None
    email: Email | None = None
    password: Password | None = None
    current_password: Text | None = Field(None, max_length=1000, json_schema_extra={"format": "password"})
    role: Role | None = Field(None, description="Admins only; ignored from others.")
    is_active: bool | None = Field(None, description="Admins only; ignored from others.")


class Profile(BaseModel):
    """A user as others see them. `email` is left out unless `PUBLIC_EMAILS` is set."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(examples=[1])
    username: str = Field(examples=["ada"])
    created_at: datetime
    email: str | None = Field(None, exclude_if=lambda email: email is None, examples=["ada@example.com"])


class NewUser(Profile):
    """A user who has just signed up."""

    email: str = Field(examples=["ada@example.com"])


class Account(NewUser):
    """A user as they see themselves, and as admins see them."""

    email_verified: bool = Field(description="Whether the owner has shown that they read the mail of `email`.")
    role: Role
    is_active: bool
