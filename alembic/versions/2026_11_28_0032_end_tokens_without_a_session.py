"""Record when an account's tokens without a session were revoked.

Revision ID: 0032
Revises: 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    # Without a default, so that only the catalogue changes.
    op.execute("ALTER TABLE users ADD COLUMN sessionless_tokens_ended_at timestamptz")


def downgrade() -> None:
    # No earlier release accepts such tokens, except those of the session that `adopt` created.
    op.drop_column("users", "sessionless_tokens_ended_at")
