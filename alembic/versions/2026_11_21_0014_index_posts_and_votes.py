"""Create the indexes for sorting and searching lists, without blocking writes.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"

INDEXES = (
    ("posts_created_at_id_idx", "posts (created_at, id) WHERE published"),
    ("posts_owner_id_created_at_id_idx", "posts (owner_id, created_at, id)"),
    ("posts_search_idx", "posts USING gin (search)"),
    ("post_stats_votes_post_id_idx", "post_stats (votes, post_id) WHERE published"),
    ("post_stats_hot_post_id_idx", "post_stats (hot, post_id) WHERE published"),
    ("votes_user_id_created_at_post_id_idx", "votes (user_id, created_at, post_id)"),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition in INDEXES:
            # An interrupted run leaves an invalid index, which IF NOT EXISTS would accept.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, _ in reversed(INDEXES):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
