"""Fill in the search column of the existing posts.

Revision ID: 0028
Revises: 0027
"""

import logging

import sqlalchemy as sa

from alembic import context, op

revision = "0028"
down_revision = "0027"

BATCH_POSTS = 1_000
# Rows that are up to date are skipped, so that an interrupted run continues quickly.
FILL = """
    UPDATE posts SET search = search_vector(title, content) WHERE search IS DISTINCT FROM search_vector(title, content)
"""
BATCH = sa.text(f"{FILL} AND id > :after AND id <= :last")
NEXT_LAST = sa.text(f"""
    SELECT max(id) FROM (SELECT id FROM posts WHERE id > :after ORDER BY id LIMIT {BATCH_POSTS}) AS batch
""")
logger = logging.getLogger("alembic.runtime.migration")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if context.is_offline_mode():  # `--sql` cannot query the number of posts.
            op.execute(FILL)
        else:
            fill_in_batches(op.get_bind())


def fill_in_batches(connection: sa.Connection) -> None:
    end = connection.scalar(sa.text("SELECT max(id) FROM posts"))
    after = connection.scalar(sa.text("SELECT min(id) - 1 FROM posts"))
    while (last := connection.scalar(NEXT_LAST, {"after": after})) is not None:
        connection.execute(BATCH, {"after": after, "last": last})
        logger.info("indexed posts up to %s of %s", last, end)
        after = last


def downgrade() -> None:
    pass
