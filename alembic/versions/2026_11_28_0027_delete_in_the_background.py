"""Mark deleted accounts and revoked sessions, whose rows are removed later in batches.

Revision ID: 0027
Revises: 0026
"""

import sqlalchemy as sa

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    # Constant defaults change only the catalogue. One statement locks the table only once.
    op.execute("""
        ALTER TABLE users
            ADD COLUMN is_deleted boolean NOT NULL DEFAULT false,
            ADD COLUMN last_ended_login_id bigint NOT NULL DEFAULT 0,
            ADD COLUMN last_ended_api_key_id bigint NOT NULL DEFAULT 0,
            ADD COLUMN kept_session_id bigint NOT NULL DEFAULT 0
    """)
    op.create_table(
        "deletions",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="deletions_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="deletions_users_fkey", ondelete="CASCADE"),
    )


def downgrade() -> None:
    # The previous revision cannot recognise them as deleted.
    op.execute("DELETE FROM users WHERE is_deleted")
    op.execute("""
        DELETE FROM sessions USING users
        WHERE users.id = sessions.user_id AND sessions.id <> users.kept_session_id AND sessions.id <= CASE sessions.kind
            WHEN 'login' THEN users.last_ended_login_id ELSE users.last_ended_api_key_id END
    """)
    op.drop_table("deletions")
    for column in ("is_deleted", "last_ended_login_id", "last_ended_api_key_id", "kept_session_id"):
        op.drop_column("users", column)
