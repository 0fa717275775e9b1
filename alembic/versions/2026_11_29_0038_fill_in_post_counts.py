"""Fill in the post counts of existing accounts.

Revision ID: 0038
Revises: 0037
"""

from alembic import op

revision = "0038"
down_revision = "0037"

BATCH_USERS = 1_000


def upgrade() -> None:
    # Each batch is a transaction, so a new post waits for at most one. It locks the rows and then counts in another
    # statement: a concurrent post is either committed and counted, or its trigger adds it after the lock is released.
    # A second run has the same result. Accounts without posts get no row.
    with op.get_context().autocommit_block():
        op.execute(f"""
            DO $$
            DECLARE
                ids bigint[];
                last bigint := (SELECT min(id) - 1 FROM users);
            BEGIN
                LOOP
                    SELECT array_agg(id), max(id) INTO ids, last
                    FROM (SELECT id FROM users WHERE id > last ORDER BY id LIMIT {BATCH_USERS}) AS batch;
                    EXIT WHEN ids IS NULL;
                    INSERT INTO user_stats (user_id) SELECT id FROM users
                    WHERE id = ANY (ids) AND EXISTS (SELECT FROM posts WHERE owner_id = users.id)
                    ORDER BY id FOR KEY SHARE
                    ON CONFLICT DO NOTHING;
                    PERFORM FROM user_stats WHERE user_id = ANY (ids) ORDER BY user_id FOR NO KEY UPDATE;
                    UPDATE user_stats SET posts = (SELECT count(*) FROM posts WHERE owner_id = user_id AND published)
                    WHERE user_id = ANY (ids);
                    COMMIT;
                END LOOP;
            END $$
        """)


def downgrade() -> None:
    pass
