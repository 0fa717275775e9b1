"""Create follows, which triggers count, and blocks.

Revision ID: 0039
Revises: 0038
"""

import sqlalchemy as sa

from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    _create("follows", "follower_id", "followee_id")
    _create("blocks", "blocker_id", "blocked_id")
    for name, table, columns in (
        ("follows_follower_id_created_at_followee_id_idx", "follows", ["follower_id", "created_at", "followee_id"]),
        ("follows_followee_id_created_at_follower_id_idx", "follows", ["followee_id", "created_at", "follower_id"]),
        ("blocks_blocker_id_created_at_blocked_id_idx", "blocks", ["blocker_id", "created_at", "blocked_id"]),
        ("blocks_blocked_id_blocker_id_idx", "blocks", ["blocked_id", "blocker_id"]),
    ):
        op.create_index(name, table, columns)
    # Each follow changes the counts of two accounts. A statement that writes no row fires its triggers all the same.
    op.execute("""
        CREATE FUNCTION count_follows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP IN ('DELETE', 'UPDATE') THEN
                PERFORM subtract_user_counts(
                    array_agg(user_id), array_agg(0), array_agg(followers), array_agg(following)
                ) FROM (
                    SELECT user_id, sum(followers) AS followers, sum(following) AS following FROM (
                        SELECT followee_id AS user_id, 1 AS followers, 0 AS following FROM old_follows
                        UNION ALL SELECT follower_id, 0, 1 FROM old_follows
                    ) AS ended GROUP BY user_id
                ) AS change HAVING count(*) > 0;
            END IF;
            IF TG_OP IN ('INSERT', 'UPDATE') THEN
                PERFORM add_user_counts(
                    array_agg(user_id), array_agg(0), array_agg(followers), array_agg(following)
                ) FROM (
                    SELECT user_id, sum(followers) AS followers, sum(following) AS following FROM (
                        SELECT followee_id AS user_id, 1 AS followers, 0 AS following FROM new_follows
                        UNION ALL SELECT follower_id, 0, 1 FROM new_follows
                    ) AS begun GROUP BY user_id
                ) AS change HAVING count(*) > 0;
            END IF;
            IF TG_OP = 'TRUNCATE' THEN
                UPDATE user_stats SET followers = 0, following = 0 WHERE followers <> 0 OR following <> 0;
            END IF;
            RETURN NULL;
        END $$
    """)
    for name, event, tables in (
        ("insert", "INSERT", "REFERENCING NEW TABLE AS new_follows"),
        ("delete", "DELETE", "REFERENCING OLD TABLE AS old_follows"),
        ("update", "UPDATE", "REFERENCING OLD TABLE AS old_follows NEW TABLE AS new_follows"),
        ("truncate", "TRUNCATE", ""),
    ):
        op.execute(f"""
            CREATE TRIGGER follows_count_{name} AFTER {event} ON follows {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION count_follows()
        """)


def _create(table: str, by: str, of: str) -> None:
    op.create_table(
        table,
        sa.Column(by, sa.BigInteger(), nullable=False),
        sa.Column(of, sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint(by, of, name=f"{table}_pkey"),
        *(
            sa.ForeignKeyConstraint([column], ["users.id"], name=f"{table}_{column}_users_fkey", ondelete="CASCADE")
            for column in (by, of)
        ),
        sa.CheckConstraint(f"{by} <> {of}", name=op.f(f"{table}_others_check")),
    )


def downgrade() -> None:
    op.drop_table("blocks")
    op.drop_table("follows")
    op.execute("DROP FUNCTION count_follows()")
