"""Record when a post was first published.

Revision ID: 0029
Revises: 0028
"""

import sqlalchemy as sa

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    # NULL for drafts and for posts published at creation, so that only the catalogue changes.
    op.add_column("posts", sa.Column("first_published_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("posts", "first_published_at")
