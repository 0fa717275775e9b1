"""Let mutes refer to posts, and drop the count of unread notifications, which no release has used.

Its own migration, so that it holds no lock on `users` while it waits for the one on `posts`.

Revision ID: 0045
Revises: 0044
"""

import sqlalchemy as sa

from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    # No release writes mutes yet, so there is no row to check.
    op.execute("""
        -- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
        ALTER TABLE post_mutes ADD CONSTRAINT post_mutes_posts_fkey
            FOREIGN KEY (post_id) REFERENCES posts ON DELETE CASCADE
    """)
    # Last, because its lock also blocks readers.
    op.execute("""
        -- squawk-ignore ban-drop-column
        ALTER TABLE user_stats DROP COLUMN unread
    """)


def downgrade() -> None:
    op.add_column("user_stats", sa.Column("unread", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.drop_constraint("post_mutes_posts_fkey", "post_mutes")
