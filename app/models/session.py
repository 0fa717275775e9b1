"""Sign-ins. An access token names its session; the session must be alive at every request."""

from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Index, String, and_, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey
from app.models.user import User


class Session(Base):
    """One sign-in of one user on one device. Ending it is deleting it."""

    __tablename__ = "sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]
    user_agent: Mapped[str | None] = mapped_column(String)
    address: Mapped[str | None] = mapped_column(String)

    __table_args__ = (Index("sessions_user_id_idx", "user_id"),)

    @classmethod
    def is_alive(cls) -> ColumnElement[bool]:
        """The condition, on `sessions` joined to `users`, under which a token of the session is accepted."""
        return and_(cls.user_id == User.id, cls.expires_at > func.now(), User.is_active)
