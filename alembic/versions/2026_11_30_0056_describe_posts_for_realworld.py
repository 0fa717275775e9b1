"""Add the description of a post and the picture address of an account, which only the RealWorld API shows.

Columns that are there already, because an adopted database may have columns of its owner, are kept as
`<name>_before_0056`.

Revision ID: 0056
Revises: 0054
"""

from alembic import op

revision = "0056"
down_revision = "0054"

COLUMNS = (("posts", "description", "text NOT NULL DEFAULT ''"), ("users", "image_url", "text"))
RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = '{old}') THEN
            ALTER TABLE {table} RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


def upgrade() -> None:
    for table, column, definition in COLUMNS:
        op.execute(RENAME.format(table=table, old=column, new=f"{column}_before_{revision}"))
        # A constant default changes only the catalogue.
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")


def downgrade() -> None:
    for table, column, _ in COLUMNS:
        op.drop_column(table, column)
        op.execute(RENAME.format(table=table, old=f"{column}_before_{revision}", new=column))
