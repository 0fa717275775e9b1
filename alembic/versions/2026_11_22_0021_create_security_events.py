"""Create security_events: the audit log of each account.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "security_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("address", sa.String()),
        sa.Column("user_agent", sa.String()),
        sa.Column("request_id", sa.String()),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="security_events_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="security_events_users_fkey", ondelete="CASCADE"),
    )
    op.create_index("security_events_user_id_id_idx", "security_events", ["user_id", "id"])
    op.create_index("security_events_created_at_idx", "security_events", ["created_at"])


def downgrade() -> None:
    op.drop_table("security_events")
