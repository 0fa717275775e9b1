"""Add created_at to votes, and put post_id first in their key to cluster votes by post.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column(
        "votes", sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.drop_constraint("votes_pkey", "votes")
    op.create_primary_key("votes_pkey", "votes", ["post_id", "user_id"])


def downgrade() -> None:
    op.drop_constraint("votes_pkey", "votes")
    op.create_primary_key("votes_pkey", "votes", ["user_id", "post_id"])
    op.drop_column("votes", "created_at")
