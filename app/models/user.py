"""User accounts."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, Integer, String, Text, and_, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.config import MODERATING, Role
from app.models.base import Base, Key, Now, PrimaryKey


class User(Base):
    """An account. A trigger names it `user<id>` until the user chooses a username.

    Users cannot choose names of this form.
    """

    __tablename__ = "users"

    id: Mapped[PrimaryKey]
    email: Mapped[str]
    email_canonical: Mapped[str] = mapped_column(unique=True)
    email_verified_at: Mapped[datetime | None]
    username: Mapped[str]
    display_name: Mapped[str | None]
    bio: Mapped[str | None]
    # The picture of the profile as JSON. Triggers of `media` keep it.
    avatar: Mapped[str | None] = mapped_column(Text)
    # The address of a picture elsewhere. Only the RealWorld API reads and writes it.
    image_url: Mapped[str | None] = mapped_column(Text)
    password_hash: Mapped[str]
    role: Mapped[Role] = mapped_column(String, server_default="user")
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    # A moderator's reason while the account is banned, or was until a time in the past. Without a time it has no end.
    ban_reason: Mapped[str | None]
    banned_until: Mapped[datetime | None]
    created_at: Mapped[Now]
    # Hides the account and its posts from all requests until their rows are removed (services/deletion.py).
    is_deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    # Sessions of each kind up to these ids are revoked, except the kept one. Their rows may still exist.
    last_ended_login_id: Mapped[int] = mapped_column(server_default=text("0"))
    last_ended_api_key_id: Mapped[int] = mapped_column(server_default=text("0"))
    kept_session_id: Mapped[int] = mapped_column(server_default=text("0"))
    # Tokens that name no session are refused unless they were issued after this time.
    sessionless_tokens_ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("users_username_key", text('lower(username COLLATE "C")'), unique=True),
        # Partial, because only few users are moderators or admins.
        Index("users_role_idx", "role", postgresql_where=text("role <> 'user'")),
        CheckConstraint("role IN ('user', 'moderator', 'admin')", name="role"),
        CheckConstraint(
            "lower(username COLLATE \"C\") !~ '^user[0-9]+$' OR username = 'user' || id::text", name="username_reserved"
        ),
    )

    # Set by `services.auth.current_user` if the caller uses an API key. A key may act on its owner's content only, so
    # `is_moderator` and `is_admin` are false then.
    acts_through_key = False

    @classmethod
    def is_banned(cls) -> ColumnElement[bool]:
        """Return the condition that the account cannot sign in now, because a moderator banned it."""
        return and_(cls.ban_reason.is_not(None), func.coalesce(cls.banned_until > func.now(), true()))

    @property
    def email_verified(self) -> bool:
        """Whether the owner has proved access to the mailbox of `email`."""
        return self.email_verified_at is not None

    @property
    def is_moderator(self) -> bool:
        """Whether the user may see other users' drafts and delete their posts."""
        return self.role in MODERATING and not self.acts_through_key

    @property
    def is_admin(self) -> bool:
        return self.role == "admin" and not self.acts_through_key


class UserStats(Base):
    """Counts of an account, in narrow rows: a post or a follow never rewrites a wide row of `users`.

    Triggers maintain them. `posts` counts published posts. An account without a row has zeros.
    """

    __tablename__ = "user_stats"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    posts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    followers: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    following: Mapped[int] = mapped_column(Integer, server_default=text("0"))
