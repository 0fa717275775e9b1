"""Let bookmarks refer to posts.

Its own migration, so that it holds no lock on `users` while it waits for the one on `posts`.

Revision ID: 0041
Revises: 0040
"""

from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    # No release writes bookmarks yet, so there is no row to check.
    op.execute("""
        -- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
        ALTER TABLE bookmarks ADD CONSTRAINT bookmarks_posts_fkey
            FOREIGN KEY (post_id) REFERENCES posts ON DELETE CASCADE
    """)


def downgrade() -> None:
    op.drop_constraint("bookmarks_posts_fkey", "bookmarks")
