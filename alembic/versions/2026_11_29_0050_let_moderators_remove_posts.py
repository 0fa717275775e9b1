"""Let moderators remove posts.

Columns that are there already, because an adopted database may have columns of its owner, are kept as
`<name>_before_0050`.

Revision ID: 0050
Revises: 0049
"""

import sqlalchemy as sa

from alembic import op

revision = "0050"
down_revision = "0049"

COLUMNS = ("removal_reason", "published_before_removal")
RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'posts'::regclass AND attname = '{old}') THEN
            ALTER TABLE posts RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


def upgrade() -> None:
    for column in COLUMNS:
        op.execute(RENAME.format(old=column, new=f"{column}_before_{revision}"))
    op.add_column("posts", sa.Column("removal_reason", sa.String()))
    op.add_column("posts", sa.Column("published_before_removal", sa.Boolean()))
    # 0052 validates it.
    op.execute("""
        ALTER TABLE posts ADD CONSTRAINT posts_removed_check CHECK (
            (removal_reason IS NULL) = (published_before_removal IS NULL)
            AND (removal_reason IS NULL OR NOT published)
        ) NOT VALID
    """)


def downgrade() -> None:
    # What a moderator removed becomes a draft.
    for column in COLUMNS:
        op.drop_column("posts", column)
        op.execute(RENAME.format(old=f"{column}_before_{revision}", new=column))
