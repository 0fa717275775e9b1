"""Create invites.

Names that another relation has are freed first: `invites` becomes `invites_before_0047`. Nothing in it changes.

Revision ID: 0047
Revises: 0046
"""

import sqlalchemy as sa

from alembic import op

revision = "0047"
down_revision = "0046"

RELATIONS = (
    "invites",
    "invites_pkey",
    "invites_id_seq",
    "invites_token_hash_key",
    "invites_creator_id_id_idx",
)


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
        "invites",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("creator_id", sa.BigInteger()),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("max_uses", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("uses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="invites_pkey"),
        sa.UniqueConstraint("token_hash", name="invites_token_hash_key"),
        sa.ForeignKeyConstraint(["creator_id"], ["users.id"], name="invites_users_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("uses BETWEEN 0 AND max_uses", name=op.f("invites_uses_check")),
    )
    op.create_index("invites_creator_id_id_idx", "invites", ["creator_id", "id"])


def downgrade() -> None:
    op.drop_table("invites")
