"""Sessions. Every credential names one, and it must be valid at every request.

Credentials are access tokens, cookies and API keys.
"""

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

# Above every id that the sequence will generate, and below 2^53, so that JavaScript reads it exactly. Because of the
# gap, batch jobs on this table must follow its keys instead of counting up.
FIRST_ADOPTED = 2**52


def adopted_session_id(user_id: int) -> int:
    """Return the id of the session for a user's sign-ins before the adoption.

    The tutorial's tokens name no session, so this one stands for them. They are valid only if `adopt` created it, and
    until it expires. Like the tokens of any session, they are revoked by a sign-out, by a new password, and by
    disabling the account.
    """
    return FIRST_ADOPTED + user_id


# Between the adopted sessions and 2^53. Both ranges are for user ids below 2^51.
FIRST_SESSIONLESS = FIRST_ADOPTED + 2**51
LAST_SESSIONLESS_USER_ID = 2**51 - 1


def sessionless_session_id(user_id: int) -> int:
    """Return the session id of a user's tokens that name none (`TUTORIAL_DEFAULTS`)."""
    return FIRST_SESSIONLESS + user_id


class Session(Base):
    """One sign-in of one user on one device, or one API key.

    Ending it deletes the row. Requests check only `expires_at`. It is the absolute end (`ends_at`) or the end of the
    idle timeout, whichever is earlier. Each use extends the idle timeout.

    One refresh token is valid at a time, and only hashes of it are stored (app/security/refresh_tokens.py).
    `refresh_family` is the hash of the part that all tokens of the session share, `refresh_hash` the hash of the valid
    token. `refresh_sealed` is the valid token, masked with its predecessor. It is for a client that lost the response
    of `refreshed_at`.
    """

    __tablename__ = "sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[SessionKind] = mapped_column(String, server_default="login")
    created_at: Mapped[Now]
    last_seen_at: Mapped[Now]
    expires_at: Mapped[datetime]
    # Always set explicitly; the default was for the release before the column.
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
        """Return the new `expires_at` of a session that is used now."""
        return func.least(cls.ends_at, func.now() + limit)

    @classmethod
    def is_valid(cls) -> ColumnElement[bool]:
        """Return the condition of a valid session, for `sessions` joined to `users`."""
        return and_(cls.user_id == User.id, cls.expires_at > func.now(), User.is_active, ~cls.was_revoked())

    @classmethod
    def was_revoked(cls) -> ColumnElement[bool]:
        """Return the condition that the session is revoked and its row not yet removed.

        It is for `sessions` joined to `users`. It is never true for an adopted session, whose id is above all others:
        `deletion_marks.end_sessions` deletes such a session.
        """
        is_login = cls.kind == literal_column("'login'")  # A literal, because prepared statements add no parameters.
        last_ended_id = case((is_login, User.last_ended_login_id), else_=User.last_ended_api_key_id)
        return and_(cls.id <= last_ended_id, cls.id != User.kept_session_id)
