"""Create webhooks.

Names that another relation has are freed first: `webhooks` becomes `webhooks_before_0055`. Nothing in it changes.

Revision ID: 0055
Revises: 0054
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0055"
down_revision = "0054"

RELATIONS = (
    "webhooks",
    "webhooks_pkey",
    "webhooks_id_seq",
    "webhooks_owner_id_id_idx",
    "webhooks_due_at_idx",
    "webhooks_id_idx",
    "webhook_deliveries",
    "webhook_deliveries_pkey",
    "webhook_deliveries_id_seq",
    "webhook_deliveries_webhook_id_id_idx",
    "webhook_deliveries_webhook_id_due_at_id_idx",
    "event_positions",
    "event_positions_pkey",
)
KINDS = "'password_reset', 'email_verification', 'password_changed', 'email_changed'"


def upgrade() -> None:
    names = ", ".join(f"'{name}'" for name in RELATIONS)
    op.execute(f"""
        DO $$
        DECLARE taken record;
        BEGIN
            FOR taken IN
                SELECT relname AS name, CASE relkind
                    WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW'
                    WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE'
                END AS kind
                FROM pg_class
                WHERE relnamespace = current_schema()::regnamespace AND relname IN ({names})
                ORDER BY name
            LOOP
                EXECUTE format('ALTER %s %I RENAME TO %I', taken.kind, taken.name, taken.name || '_before_{revision}');
            END LOOP;
        END $$
    """)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("scope", sa.String(), server_default=sa.text("'own'"), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("'infinity'"), nullable=False),
        sa.Column("failure_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("enabled_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="webhooks_pkey"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="webhooks_users_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("scope IN ('own', 'all')", name=op.f("webhooks_scope_check")),
    )
    op.create_index("webhooks_owner_id_id_idx", "webhooks", ["owner_id", "id"])
    op.create_index("webhooks_due_at_idx", "webhooks", ["due_at"])
    op.create_index("webhooks_id_idx", "webhooks", ["id"], postgresql_where=sa.text("scope = 'all'"))
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True)),
        sa.Column("response_code", sa.Integer()),
        sa.Column("milliseconds", sa.Integer()),
        sa.Column("failure", sa.String()),
        sa.PrimaryKeyConstraint("id", name="webhook_deliveries_pkey"),
        sa.CheckConstraint(
            "status IN ('waiting', 'delivered', 'given_up')", name=op.f("webhook_deliveries_status_check")
        ),
    )
    op.create_index("webhook_deliveries_webhook_id_id_idx", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index(
        "webhook_deliveries_webhook_id_due_at_id_idx",
        "webhook_deliveries",
        ["webhook_id", "due_at", "id"],
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_table(
        "event_positions",
        sa.Column("consumer", sa.String(), nullable=False),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", name="event_positions_pkey"),
    )
    _allow(f"{KINDS}, 'webhook_disabled'")


def downgrade() -> None:
    op.execute("DELETE FROM outgoing_mails WHERE kind = 'webhook_disabled'")
    _allow(KINDS)
    op.drop_table("event_positions")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")


def _allow(kinds: str) -> None:
    # Mails stay for at most a week, so checking the rows takes a moment.
    op.execute(f"""
        ALTER TABLE outgoing_mails
            -- squawk-ignore ban-drop-constraint
            DROP CONSTRAINT outgoing_mails_kind_check,
            -- squawk-ignore constraint-missing-not-valid
            ADD CONSTRAINT outgoing_mails_kind_check CHECK (kind IN ({kinds}))
    """)
