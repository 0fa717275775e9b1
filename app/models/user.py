"""People who can sign in."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.config import MODERATING, Role
from app.models.base import Base, Now, PrimaryKey


class User(Base):
    """An account. A trigger names it `user<id>` until a username is chosen; no account can choose such a name."""

    __tablename__ = "users"

    id: Mapped[PrimaryKey]
    email: Mapped[str]
    email_canonical: Mapped[str] = mapped_column(unique=True)
    email_verified_at: Mapped[datetime | None]
    username: Mapped[str]
    password_hash: Mapped[str]
    role: Mapped[Role] = mapped_column(String, server_default="user")
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[Now]
    # The account and its posts do not exist for any request; its rows are being removed (services/deletion.py).
    is_deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    # Sessions of each kind up to these ids have ended, except the kept one, although their rows may still be there.
    last_ended_login_id: Mapped[int] = mapped_column(server_default=text("0"))
    last_ended_api_key_id: Mapped[int] = mapped_column(server_default=text("0"))
    kept_session_id: Mapped[int] = mapped_column(server_default=text("0"))
    # Tokens that name no session are refused if they may have been issued before.
    sessionless_tokens_ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("users_username_key", text('lower(username COLLATE "C")'), unique=True),
        # Moderators and admins are few among many.
        Index("users_role_idx", "role", postgresql_where=text("role <> 'user'")),
        CheckConstraint("role IN ('user', 'moderator', 'admin')", name="role"),
        CheckConstraint(
            "lower(username COLLATE \"C\") !~ '^user[0-9]+$' OR username = 'user' || id::text", name="username_reserved"
        ),
    )

    # Set by `services.auth.current_user` on the caller of a request with an API key. A key acts for the content of a
    # person, so the two properties below are false.
    acts_through_key = False

    @property
    def email_verified(self) -> bool:
        """Whether the owner has shown that they read the mail of `email`."""
        return self.email_verified_at is not None

    @property
    def is_moderator(self) -> bool:
        """Whether drafts of others can be seen and posts of others deleted."""
        return self.role in MODERATING and not self.acts_through_key

    @property
    def is_admin(self) -> bool:
        return self.role == "admin" and not self.acts_through_key
