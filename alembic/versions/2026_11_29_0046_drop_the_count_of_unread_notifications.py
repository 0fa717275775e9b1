"""Drop the count of unread notifications, which no release has used.

Its own migration, so that it holds no lock on `posts` while it waits for the one on `user_stats`.

Revision ID: 0046
Revises: 0045
"""

import sqlalchemy as sa

from alembic import op

revision = "0046"
down_revision = "0045"


def upgrade() -> None:
    op.execute("""
        -- squawk-ignore ban-drop-column
        ALTER TABLE user_stats DROP COLUMN IF EXISTS unread
    """)


def downgrade() -> None:
    op.add_column("user_stats", sa.Column("unread", sa.Integer(), server_default=sa.text("0"), nullable=False))
