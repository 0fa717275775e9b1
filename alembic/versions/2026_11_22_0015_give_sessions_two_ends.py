"""Add an absolute expiry, a kind, last_seen_at and a refresh token to sessions.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("sessions", sa.Column("kind", sa.String(), server_default="login", nullable=False))
    op.add_column("sessions", sa.Column("last_seen_at", time, server_default=sa.text("now()"), nullable=False))
    # The default is for the previous release, which creates sessions until the new one has replaced it.
    op.add_column("sessions", sa.Column("ends_at", time, server_default=sa.text("now() + '30 days'"), nullable=False))
    op.add_column("sessions", sa.Column("refresh_family", sa.LargeBinary()))
    op.add_column("sessions", sa.Column("refresh_hash", sa.LargeBinary()))
    op.add_column("sessions", sa.Column("refresh_sealed", sa.LargeBinary()))
    op.add_column("sessions", sa.Column("refreshed_at", time))
    op.create_check_constraint(
        op.f("sessions_kind_check"), "sessions", "kind IN ('login', 'api_key')", postgresql_not_valid=True
    )


def downgrade() -> None:
    # The previous release would treat every session as a sign-in.
    op.execute("DELETE FROM sessions WHERE kind <> 'login'")
    op.drop_constraint("sessions_kind_check", "sessions")
    for column in (
        "refreshed_at", "refresh_sealed", "refresh_hash", "refresh_family", "ends_at", "last_seen_at", "kind",
    ):  # fmt: skip
        op.drop_column("sessions", column)
