"""Let moderators lock posts.

A column `posts.locked` that is there already, because an adopted database may have columns of its owner, becomes
`locked_before_0042`.

Revision ID: 0042
Revises: 0041
"""

from alembic import op

revision = "0042"
down_revision = "0041"

RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'posts'::regclass AND attname = '{old}') THEN
            ALTER TABLE posts RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


def upgrade() -> None:
    op.execute(RENAME.format(old="locked", new="locked_before_0042"))
    # A constant default changes only the catalogue.
    op.execute("ALTER TABLE posts ADD COLUMN locked boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.drop_column("posts", "locked")
    op.execute(RENAME.format(old="locked_before_0042", new="locked"))
