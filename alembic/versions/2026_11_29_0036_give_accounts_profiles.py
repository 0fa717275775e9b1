"""Give accounts a display name, a biography and counts.

The release before fills none of these, and reads none. Names that another table, index or column has are freed first,
because an adopted database may have tables of its owner beside ours: `follows` becomes `follows_before_0036`, and
`users.bio` becomes `users.bio_before_0036`. Nothing in them changes.

Revision ID: 0036
Revises: 0035
"""

import sqlalchemy as sa

from alembic import op

revision = "0036"
down_revision = "0035"

TABLES = ("user_stats", "follows", "blocks", "bookmarks")
# Of this revision and of those that follow it.
RELATIONS = (
    *TABLES,
    *(f"{table}_pkey" for table in TABLES),
    "follows_follower_id_created_at_followee_id_idx",
    "follows_followee_id_created_at_follower_id_idx",
    "blocks_blocker_id_created_at_blocked_id_idx",
    "blocks_blocked_id_blocker_id_idx",
    "bookmarks_user_id_created_at_post_id_idx",
)
COLUMNS = ("display_name", "bio")


def listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def upgrade() -> None:
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
                WHERE relnamespace = current_schema()::regnamespace AND relname IN ({listed(RELATIONS)})
                ORDER BY name
            LOOP
                EXECUTE format('ALTER %s %I RENAME TO %I', taken.kind, taken.name, taken.name || '_before_{revision}');
            END LOOP;
            FOR taken IN
                SELECT attname AS name FROM pg_attribute
                WHERE attrelid = 'users'::regclass AND attname IN ({listed(COLUMNS)})
                ORDER BY name
            LOOP
                EXECUTE format('ALTER TABLE users RENAME %I TO %I', taken.name, taken.name || '_before_{revision}');
            END LOOP;
        END $$
    """)
    # Without defaults, so that only the catalogue changes. One statement locks the table only once.
    op.execute("ALTER TABLE users ADD COLUMN display_name varchar, ADD COLUMN bio varchar")
    op.create_table(
        "user_stats",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
            for name in ("posts", "followers", "following", "unread")
        ),
        sa.PrimaryKeyConstraint("user_id", name="user_stats_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="user_stats_users_fkey", ondelete="CASCADE"),
    )
    # Both change the rows in the order of `app.database.locks`: by ascending id.
    op.execute("""
        CREATE FUNCTION add_user_counts(
            user_ids bigint[], more_posts bigint[], more_followers bigint[], more_following bigint[]
        ) RETURNS void LANGUAGE sql AS $$
            INSERT INTO user_stats AS stats (user_id, posts, followers, following)
            SELECT * FROM unnest(user_ids, more_posts, more_followers, more_following)
                AS added (user_id, posts, followers, following)
            ORDER BY user_id
            ON CONFLICT (user_id) DO UPDATE SET posts = stats.posts + excluded.posts,
                followers = stats.followers + excluded.followers, following = stats.following + excluded.following
        $$
    """)
    # Adds no row: the account may be the one whose deletion removes the posts or follows.
    op.execute("""
        CREATE FUNCTION subtract_user_counts(
            user_ids bigint[], fewer_posts bigint[], fewer_followers bigint[], fewer_following bigint[]
        ) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM user_stats WHERE user_id = ANY (user_ids) ORDER BY user_id FOR NO KEY UPDATE;
            UPDATE user_stats AS stats SET posts = stats.posts - gone.posts,
                followers = stats.followers - gone.followers, following = stats.following - gone.following
            FROM unnest(user_ids, fewer_posts, fewer_followers, fewer_following)
                AS gone (user_id, posts, followers, following)
            WHERE stats.user_id = gone.user_id;
        END $$
    """)


def downgrade() -> None:
    for function in ("subtract_user_counts", "add_user_counts"):
        op.execute(f"DROP FUNCTION {function}(bigint[], bigint[], bigint[], bigint[])")
    op.drop_table("user_stats")
    for column in COLUMNS[::-1]:
        op.drop_column("users", column)
