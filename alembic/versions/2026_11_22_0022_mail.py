"""Create outgoing mails and mail tokens, and record verified addresses.

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    # NULL without a default rewrites no row. Existing accounts have not verified their address.
    op.add_column("users", sa.Column("email_verified_at", sa.DateTime(timezone=True)))
    op.create_table(
        "outgoing_mails",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("request_id", sa.String()),
        sa.Column("client_address", sa.String()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failure", sa.String()),
        sa.PrimaryKeyConstraint("id", name="outgoing_mails_pkey"),
        sa.CheckConstraint(
            "kind IN ('password_reset', 'email_verification', 'password_changed', 'email_changed')",
            name=op.f("outgoing_mails_kind_check"),
        ),
    )
    op.create_index("outgoing_mails_due_at_idx", "outgoing_mails", ["due_at"])
    op.create_table(
        "mail_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="mail_tokens_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="mail_tokens_users_fkey", ondelete="CASCADE"),
        sa.UniqueConstraint("token_hash", name="mail_tokens_token_hash_key"),
        sa.UniqueConstraint("user_id", "purpose", name="mail_tokens_user_id_purpose_key"),
        sa.CheckConstraint(
            "purpose IN ('password_reset', 'email_verification')", name=op.f("mail_tokens_purpose_check")
        ),
    )
    op.create_index("mail_tokens_expires_at_idx", "mail_tokens", ["expires_at"])


def downgrade() -> None:
    op.drop_table("mail_tokens")
    op.drop_table("outgoing_mails")
    op.drop_column("users", "email_verified_at")
