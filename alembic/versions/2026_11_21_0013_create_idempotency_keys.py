"""Create idempotency_keys: stored responses for retried requests.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.BigInteger()),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.String()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="idempotency_keys_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="idempotency_keys_users_fkey", ondelete="CASCADE"),
    )
    op.create_index(
        "idempotency_keys_user_id_key_key",
        "idempotency_keys",
        ["user_id", "key"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_index("idempotency_keys_expires_at_idx", "idempotency_keys", ["expires_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
