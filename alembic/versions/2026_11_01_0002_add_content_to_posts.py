"""Add content to posts: the tutorial's second step.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("posts", sa.Column("content", sa.String(), server_default="", nullable=False))
    op.alter_column("posts", "content", server_default=None)  # Only existing posts needed it.


def downgrade() -> None:
    op.drop_column("posts", "content")
