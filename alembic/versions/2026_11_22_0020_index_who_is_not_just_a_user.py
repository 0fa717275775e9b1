"""Index moderators and admins.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # An interrupted run leaves an invalid index, which IF NOT EXISTS would accept.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS users_role_idx")
        op.execute("CREATE INDEX CONCURRENTLY users_role_idx ON users (role) WHERE role <> 'user'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS users_role_idx")
