"""A table that no code uses any more.

The release before reads and cleans it up, and would fail without it.
"""

from sqlalchemy import Index, Integer, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from app.models.base import Base, Now, PrimaryKey


class TransactionId(UserDefinedType[str]):
    """PostgreSQL's `xid8`: a transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


# `alembic check` needs this to recognise the column type in the database.
ischema_names["xid8"] = TransactionId


class PostStatsHistory(Base):
    """Former vote counts, which only the release before uses.

    With them it keeps the order of a list stable across its pages. A migration of the next release drops the table
    (docs/migrations.md).
    """

    __tablename__ = "post_stats_history"

    id: Mapped[PrimaryKey]
    post_id: Mapped[int]
    votes_before: Mapped[int] = mapped_column(Integer)
    transaction_id: Mapped[str] = mapped_column(TransactionId, server_default=text("pg_current_xact_id()"))
    changed_at: Mapped[Now]

    __table_args__ = (Index("post_stats_history_transaction_id_idx", "transaction_id"),)
