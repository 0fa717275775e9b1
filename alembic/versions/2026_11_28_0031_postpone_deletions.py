"""Record deletions that a foreign key of another table blocks.

Revision ID: 0031
Revises: 0030
"""

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    # Without a default, so that only the catalogue changes.
    op.execute("ALTER TABLE deletions ADD COLUMN blocked_at timestamptz")


def downgrade() -> None:
    op.drop_column("deletions", "blocked_at")
