"""Index drafts by owner, so that the drafts of an account can be counted.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS posts_owner_id_idx")
        op.execute("CREATE INDEX CONCURRENTLY posts_owner_id_idx ON posts (owner_id) WHERE NOT published")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS posts_owner_id_idx")
