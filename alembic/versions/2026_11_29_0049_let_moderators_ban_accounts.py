"""Let moderators ban accounts, take reports and log what moderators do.

Names that another relation or column has are freed first: `reports` becomes `reports_before_0049`. Nothing in it
changes. One migration, because the two columns and the foreign key of `reports` lock the same table.

Revision ID: 0049
Revises: 0048
"""

import sqlalchemy as sa

from alembic import op

revision = "0049"
down_revision = "0048"

COLUMNS = ("banned_until", "ban_reason")
TABLES = ("moderation_log", "reports")
RELATIONS = (
    *TABLES,
    *(f"{table}_{suffix}" for table in TABLES for suffix in ("pkey", "id_seq")),
    "reports_post_id_comment_id_user_id_reporter_id_key",
    "reports_reporter_id_resolved_at_idx",
    "reports_id_idx",
    "reports_resolved_at_id_idx",
)
RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = '{old}') THEN
            ALTER TABLE users RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""


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
    for column in COLUMNS:
        op.execute(RENAME.format(old=column, new=f"{column}_before_{revision}"))
    op.add_column("users", sa.Column("banned_until", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("ban_reason", sa.String()))
    op.create_table(
        "moderation_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("moderator_id", sa.BigInteger()),
        sa.Column("action", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("user_id", "post_id", "comment_id", "report_id")),
        sa.Column("reason", sa.String()),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="moderation_log_pkey"),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("reporter_id", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("post_id", "comment_id", "user_id")),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("resolver_id", sa.BigInteger()),
        sa.Column("action", sa.String()),
        sa.Column("note", sa.String()),
        sa.PrimaryKeyConstraint("id", name="reports_pkey"),
        sa.ForeignKeyConstraint(["reporter_id"], ["users.id"], name="reports_users_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("num_nonnulls(post_id, comment_id, user_id) = 1", name=op.f("reports_thing_check")),
        sa.CheckConstraint("action IN ('dismiss', 'remove', 'ban')", name=op.f("reports_action_check")),
        sa.CheckConstraint("(resolved_at IS NULL) = (action IS NULL)", name=op.f("reports_resolved_check")),
    )
    op.create_index(
        "reports_post_id_comment_id_user_id_reporter_id_key",
        "reports",
        ["post_id", "comment_id", "user_id", "reporter_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index("reports_reporter_id_resolved_at_idx", "reports", ["reporter_id", "resolved_at"])
    op.create_index("reports_id_idx", "reports", ["id"], postgresql_where=sa.text("resolved_at IS NULL"))
    op.create_index(
        "reports_resolved_at_id_idx",
        "reports",
        ["resolved_at", "id"],
        postgresql_where=sa.text("resolved_at IS NOT NULL"),
    )


def downgrade() -> None:
    for table in TABLES[::-1]:
        op.drop_table(table)
    for column in COLUMNS:
        op.drop_column("users", column)
        op.execute(RENAME.format(old=f"{column}_before_{revision}", new=column))
