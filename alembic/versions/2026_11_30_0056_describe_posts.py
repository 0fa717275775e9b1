"""Add the description of posts, which only the RealWorld API shows.

A column `description` that posts have already is kept as `description_before_0056`.

Revision ID: 0056
Revises: 0055
"""

from alembic import op

revision = "0056"
down_revision = "0055"

RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'posts'::regclass AND attname = '{old}') THEN
            ALTER TABLE posts RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


def upgrade() -> None:
    op.execute(RENAME.format(old="description", new=f"description_before_{revision}"))
    # A constant default changes only the catalogue.
    op.execute("ALTER TABLE posts ADD COLUMN description text NOT NULL DEFAULT ''")


def downgrade() -> None:
    op.drop_column("posts", "description")
    op.execute(RENAME.format(old=f"description_before_{revision}", new="description"))
