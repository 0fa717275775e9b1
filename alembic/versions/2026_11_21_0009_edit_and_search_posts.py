"""Add version, updated_at and a search column to posts.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column(
        "posts", sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.execute("UPDATE posts SET updated_at = created_at")
    op.add_column("posts", sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column(
        "posts",
        sa.Column(
            "search",
            TSVECTOR(),
            sa.Computed("to_tsvector('simple'::regconfig, title || ' ' || left(content, 40000))", persisted=True),
            nullable=False,
        ),
    )


def downgrade() -> None:
    op.drop_column("posts", "search")
    op.drop_column("posts", "version")
    op.drop_column("posts", "updated_at")
