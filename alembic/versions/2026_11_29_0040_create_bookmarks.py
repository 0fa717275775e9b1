"""Create bookmarks.

Revision ID: 0040
Revises: 0039
"""

import sqlalchemy as sa

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    op.create_table(
        "bookmarks",
        sa.Column("post_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("post_id", "user_id", name="bookmarks_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="bookmarks_users_fkey", ondelete="CASCADE"),
    )
    op.create_index("bookmarks_user_id_created_at_post_id_idx", "bookmarks", ["user_id", "created_at", "post_id"])


def downgrade() -> None:
    op.drop_table("bookmarks")
