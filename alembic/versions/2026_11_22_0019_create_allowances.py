"""Create allowances: attempt counters of rate limits.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "allowances",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("limit_name", sa.String(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="allowances_pkey"),
        sa.UniqueConstraint("limit_name", "key", name="allowances_limit_name_key_key"),
    )
    op.create_index("allowances_expires_at_idx", "allowances", ["expires_at"])


def downgrade() -> None:
    op.drop_table("allowances")
