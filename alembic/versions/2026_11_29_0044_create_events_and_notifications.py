"""Create the event log, notifications and mutes of posts.

Names that another relation has are freed first: `notifications` becomes `notifications_before_0044`. Nothing in it
changes.

Revision ID: 0044
Revises: 0043
"""

import sqlalchemy as sa

from alembic import op

revision = "0044"
down_revision = "0043"

TABLES = ("events", "notifications", "post_mutes")
RELATIONS = (
    *TABLES,
    *(f"{table}_pkey" for table in TABLES),
    "events_id_seq",
    "events_transaction_id_id_idx",
    "notifications_id_seq",
    "notifications_user_id_id_idx",
    "notifications_user_id_id_actor_id_idx",
    "notifications_post_id_comment_id_user_id_key",
    "notifications_actor_id_user_id_key",
    "post_mutes_user_id_post_id_idx",
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
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column("kind", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("actor_id", "post_id", "comment_id", "user_id")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="events_pkey"),
    )
    op.create_index("events_transaction_id_id_idx", "events", ["transaction_id", "id"])
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("actor_id", "post_id", "comment_id")),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="notifications_pkey"),
        sa.CheckConstraint(
            "kind IN ('reply', 'comment', 'mention', 'follow', 'moderation')", name=op.f("notifications_kind_check")
        ),
    )
    op.create_index("notifications_user_id_id_idx", "notifications", ["user_id", "id"])
    op.create_index(
        "notifications_user_id_id_actor_id_idx",
        "notifications",
        ["user_id", "id", "actor_id"],
        postgresql_where=sa.text("read_at IS NULL"),
    )
    op.create_index(
        "notifications_post_id_comment_id_user_id_key",
        "notifications",
        ["post_id", "comment_id", "user_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("kind IN ('reply', 'comment', 'mention')"),
    )
    op.create_index(
        "notifications_actor_id_user_id_key",
        "notifications",
        ["actor_id", "user_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'follow'"),
    )
    op.create_table(
        "post_mutes",
        sa.Column("post_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("post_id", "user_id", name="post_mutes_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="post_mutes_users_fkey", ondelete="CASCADE"),
    )
    op.create_index("post_mutes_user_id_post_id_idx", "post_mutes", ["user_id", "post_id"])
    _log_events()


def _log_events() -> None:
    # Of several kinds for one recipient, the first counts. Scalar subqueries are looked up row by row, with any
    # statistics. The newest 100 unread notifications of a recipient bound what one actor can send, and those of a text
    # what its changes can. `use_variable`, because an owner's column of `users` may be called `names`.
    op.execute("""
        CREATE FUNCTION log_event(
            event text, by_user bigint, of_post bigint, of_comment bigint, recipients bigint[], kinds text[],
            names text[]
        ) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
        #variable_conflict use_variable
        BEGIN
            IF event IS NOT NULL THEN
                INSERT INTO events (kind, actor_id, post_id, comment_id) VALUES (event, by_user, of_post, of_comment);
            END IF;
            IF cardinality(names) > 0 THEN
                SELECT recipients || array_agg(id), kinds || array_agg('mention'::text) INTO recipients, kinds
                FROM users WHERE lower(username COLLATE "C") = ANY (names);
            END IF;
            WITH notified AS (
                INSERT INTO notifications (user_id, kind, actor_id, post_id, comment_id)
                SELECT recipient.id, recipient.kind, by_user, of_post, of_comment
                FROM (
                    SELECT DISTINCT ON (cause.id) cause.id, cause.kind
                    FROM unnest(recipients, kinds) WITH ORDINALITY AS cause (id, kind, place)
                    WHERE cause.id <> by_user ORDER BY cause.id, cause.place
                ) AS recipient
                WHERE (SELECT is_active FROM users WHERE users.id = recipient.id)
                    AND (
                        SELECT count(*) = 0 FROM blocks
                        WHERE (blocker_id, blocked_id) IN ((recipient.id, by_user), (by_user, recipient.id))
                    )
                    AND (SELECT count(*) = 0 FROM post_mutes WHERE post_id = of_post AND user_id = recipient.id)
                    AND (
                        SELECT count(*) < 20 FROM (
                            SELECT unread.actor_id FROM notifications AS unread
                            WHERE unread.user_id = recipient.id AND unread.read_at IS NULL
                            ORDER BY unread.id DESC LIMIT 100
                        ) AS newest WHERE newest.actor_id = by_user
                    )
                    AND (
                        of_post IS NULL OR 20 > CASE WHEN of_comment IS NULL THEN (
                            SELECT count(*) FROM notifications AS sent
                            WHERE sent.post_id = of_post AND sent.comment_id IS NULL
                                AND sent.kind IN ('reply', 'comment', 'mention')
                        ) ELSE (
                            SELECT count(*) FROM notifications AS sent
                            WHERE sent.post_id = of_post AND sent.comment_id = of_comment
                                AND sent.kind IN ('reply', 'comment', 'mention')
                        ) END
                    )
                ON CONFLICT DO NOTHING
                RETURNING user_id
            )
            INSERT INTO events (kind, actor_id, post_id, comment_id, user_id)
            SELECT 'notification', by_user, of_post, of_comment, user_id FROM notified;
        END $$
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION log_event(text, bigint, bigint, bigint, bigint[], text[], text[])")
    for table in TABLES[::-1]:
        op.drop_table(table)
