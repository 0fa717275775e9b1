"""Add the address of an account's picture elsewhere, which only the RealWorld API shows.

A column `image_url` that users have already is kept as `image_url_before_0057`.

Revision ID: 0057
Revises: 0056
"""

from alembic import op

revision = "0057"
down_revision = "0056"

RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = '{old}') THEN
            ALTER TABLE users RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


def upgrade() -> None:
    op.execute(RENAME.format(old="image_url", new=f"image_url_before_{revision}"))
    op.execute("ALTER TABLE users ADD COLUMN image_url text")


def downgrade() -> None:
    op.drop_column("users", "image_url")
    op.execute(RENAME.format(old=f"image_url_before_{revision}", new="image_url"))
