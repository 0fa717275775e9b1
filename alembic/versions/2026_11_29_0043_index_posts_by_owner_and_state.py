"""Index posts by owner, state and time, in place of two indexes.

The new index has an owner's published posts in order, without drafts between them, and also finds drafts and supports
the foreign key. The release before uses it too. Only its removal of a deleted account with many posts sorts them for
each batch.

Revision ID: 0043
Revises: 0042
"""

from alembic import op

revision = "0043"
down_revision = "0042"

NEW = ("posts_owner_id_published_created_at_id_idx", "posts (owner_id, published, created_at, id)")
FORMER = (
    ("posts_owner_id_created_at_id_idx", "posts (owner_id, created_at, id)"),
    ("posts_owner_id_idx", "posts (owner_id) WHERE NOT published"),
)


def upgrade() -> None:
    _create(NEW)
    _drop(*FORMER)


def downgrade() -> None:
    _create(*FORMER)
    _drop(NEW)


def _create(*indexes: tuple[str, str]) -> None:
    with op.get_context().autocommit_block():
        for name, definition in indexes:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")


def _drop(*indexes: tuple[str, str]) -> None:
    with op.get_context().autocommit_block():
        for name, _ in indexes:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
