"""Let mutes refer to posts.

Its own migration, so that it holds no lock on `users` while it waits for the one on `posts`.

Revision ID: 0045
Revises: 0044
"""

from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    # No release writes mutes yet, so there is no row to check.
    op.execute("""
        -- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
        ALTER TABLE post_mutes ADD CONSTRAINT post_mutes_posts_fkey
            FOREIGN KEY (post_id) REFERENCES posts ON DELETE CASCADE
    """)


def downgrade() -> None:
    op.drop_constraint("post_mutes_posts_fkey", "post_mutes")
