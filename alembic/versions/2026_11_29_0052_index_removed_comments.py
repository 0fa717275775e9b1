"""Index removed comments, and validate what removed posts and comments comply with.

Revision ID: 0052
Revises: 0051
"""

from alembic import op

revision = "0052"
down_revision = "0051"

INDEX = "comments_post_id_parent_id_idx"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {INDEX} ON comments (post_id, parent_id) WHERE removal_reason IS NOT NULL"
        )
        op.execute("ALTER TABLE posts VALIDATE CONSTRAINT posts_removed_check")
        op.execute("ALTER TABLE comments VALIDATE CONSTRAINT comments_removed_check")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
