"""Require an absolute expiry of every session, and index refresh tokens.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"

BATCH_ROWS = 10_000


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # The only expiry of existing sessions was the absolute one. Each batch has its own transaction, so that a
        # sign-out waits for at most one batch.
        op.execute(f"""
            DO $$
            DECLARE first bigint := 0; last bigint := coalesce((SELECT max(id) FROM sessions), 0);
            BEGIN
                WHILE first <= last LOOP
                    UPDATE sessions SET ends_at = expires_at
                    WHERE id BETWEEN first AND first + {BATCH_ROWS - 1} AND ends_at <> expires_at;
                    COMMIT;
                    first := first + {BATCH_ROWS};
                END LOOP;
            END $$
        """)
        op.execute("ALTER TABLE sessions VALIDATE CONSTRAINT sessions_kind_check")
        # An interrupted run leaves an invalid index, which IF NOT EXISTS would accept.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_refresh_family_key")
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY sessions_refresh_family_key ON sessions (refresh_family)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_refresh_family_key")
