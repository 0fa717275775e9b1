"""Add owners to posts: the tutorial's fourth step.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("posts", sa.Column("owner_id", sa.Integer()))
    # Posts that have no owner go to an account that cannot sign in: its random password was discarded. They are older
    # than this migration, or were downgraded from a later one.
    op.execute("""
        WITH nobody AS (
            INSERT INTO users (email, password)
            SELECT 'nobody@example.com', '$2b$12$OTU5ShDAVw7UW5f/xhSe0.AlQMVIiQt/qqPaBnnoP28JMHEVsDzLK'
            WHERE EXISTS (SELECT FROM posts)
            ON CONFLICT (email) DO UPDATE SET email = excluded.email
            RETURNING id
        )
        UPDATE posts SET owner_id = nobody.id FROM nobody
    """)
    op.alter_column("posts", "owner_id", nullable=False)
    op.create_foreign_key("posts_users_fk", "posts", "users", ["owner_id"], ["id"], ondelete="CASCADE")


def downgrade() -> None:
    op.drop_constraint("posts_users_fk", "posts")
    op.drop_column("posts", "owner_id")
