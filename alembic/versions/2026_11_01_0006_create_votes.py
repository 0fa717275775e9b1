"""Create votes with a composite key: the tutorial's last step.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "votes",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("post_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="votes_post_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="votes_user_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "post_id", name="votes_pkey"),
    )


def downgrade() -> None:
    op.drop_table("votes")
