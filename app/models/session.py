"""Sessions. Every credential (access token, cookie, API key) names one, which must be alive at every request."""

from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    and_,
    case,
    func,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey
from app.models.user import User

SessionKind = Literal["login", "api_key"]

# Above every id that the table will assign, and below 2^53, so that JavaScript reads it exactly. Code that goes through
# the table in batches must follow its keys, not steps of numbers.
FIRST_ADOPTED = 2**52


def adopted_session_id(user_id: int) -> int:
    """The session that stands for a user's sign-ins from before their database was adopted.

    The tutorial's tokens name no session. They are taken for this one, so they live only where `adopt` made it, not
    beyond its end, and die as those of any session do: by signing out, by another password, by a disabled account.
    """
    return FIRST_ADOPTED + user_id


# Between the adopted ones and 2^53. Both are for ids of users below 2^51.
FIRST_SESSIONLESS = FIRST_ADOPTED + 2**51
LAST_SESSIONLESS_USER_ID = 2**51 - 1


def sessionless_session_id(user_id: int) -> int:
    """The session that stands for all tokens of a user that name none, with `TUTORIAL_DEFAULTS`."""
    return FIRST_SESSIONLESS + user_id


class Session(Base):
    """One sign-in of one user on one device, or one API key. Ending it is deleting it.

    `expires_at` is the one end that is checked: the absolute end (`ends_at`), or, where that comes first, the end of
    the time that a session may go without being used. Being used moves it.

    One refresh token is live at a time; only hashes of it are kept (app/security/refresh_tokens.py). `refresh_family`
    is of the part that all tokens of the session have in common, `refresh_hash` of the live one. `refresh_sealed` is
    the live one, which only its predecessor opens, for a client that did not get the answer of `refreshed_at`.
    """

    __tablename__ = "sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[SessionKind] = mapped_column(String, server_default="login")
    created_at: Mapped[Now]
    last_seen_at: Mapped[Now]
    expires_at: Mapped[datetime]
    # Always given; the default was for the release that did not know the column.
    ends_at: Mapped[datetime] = mapped_column(server_default=text("now() + '30 days'"))
    user_agent: Mapped[str | None] = mapped_column(String)
    address: Mapped[str | None] = mapped_column(String)
    refresh_family: Mapped[bytes | None] = mapped_column(LargeBinary)
    refresh_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    refresh_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    refreshed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("sessions_user_id_idx", "user_id"),
        Index("sessions_refresh_family_key", "refresh_family", unique=True),
        CheckConstraint("kind IN ('login', 'api_key')", name="kind"),
    )

    @classmethod
    def idle_end(cls, limit: timedelta) -> ColumnElement[datetime]:
        """The new `expires_at` of a session that is used now."""
        return func.least(cls.ends_at, func.now() + limit)

    @classmethod
    def is_valid(cls) -> ColumnElement[bool]:
        """The condition, on `sessions` joined to `users`, under which a token of the session is accepted."""
        return and_(cls.user_id == User.id, cls.expires_at > func.now(), User.is_active, ~cls.was_revoked())

    @classmethod
    def was_revoked(cls) -> ColumnElement[bool]:
        """The condition, on `sessions` joined to `users`, under which the session ended and its row is being removed.

        An adopted session is not among them, because its id is above all others: `deletions.end_sessions` deletes it.
        """
        is_login = cls.kind == literal_column("'login'")  # No parameter: prepared statements have only their own.
        last_ended_id = case((is_login, User.last_ended_login_id), else_=User.last_ended_api_key_id)
        return and_(cls.id <= last_ended_id, cls.id != User.kept_session_id)
