"""Create api_keys: long-lived sessions for programs.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("session_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", ARRAY(sa.String()), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="api_keys_pkey"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="api_keys_sessions_fkey", ondelete="CASCADE"),
        sa.UniqueConstraint("key_hash", name="api_keys_key_hash_key"),
        sa.CheckConstraint("scopes IN ('{read}', '{read,write}')", name=op.f("api_keys_scopes_check")),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
    # Without api_keys, nothing could use or revoke these sessions.
    op.execute("DELETE FROM sessions WHERE kind = 'api_key'")
