"""Stop recording former vote counts.

Later pages of lists sorted by votes continue after the cursor's values, so no code needs `post_stats_history`. Its
rows are removed, and it stays without rows in this release: servers of the release before read it, and their cleanup
deletes from it. Without rows they continue lists as this release does. The next release drops the table, with its model
(docs/migrations.md).

Revision ID: 0033
Revises: 0032
"""

from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION change_vote_counts(post_ids bigint[], changes bigint[]) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM post_stats WHERE post_id = ANY (post_ids) ORDER BY post_id FOR NO KEY UPDATE;
            UPDATE post_stats AS stats SET votes = stats.votes + change.n
            FROM unnest(post_ids, changes) AS change (post_id, n)
            WHERE stats.post_id = change.post_id;
        END $$
    """)
    # Votes that are being counted by the old function wait for the lock, and may add a few rows after it.
    op.execute("TRUNCATE post_stats_history")


def downgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION change_vote_counts(post_ids bigint[], changes bigint[]) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM post_stats WHERE post_id = ANY (post_ids) ORDER BY post_id FOR NO KEY UPDATE;
            WITH changed AS (
                UPDATE post_stats AS stats SET votes = stats.votes + change.n
                FROM unnest(post_ids, changes) AS change (post_id, n)
                WHERE stats.post_id = change.post_id
                RETURNING stats.post_id, stats.votes - change.n AS votes_before
            )
            INSERT INTO post_stats_history (post_id, votes_before) SELECT post_id, votes_before FROM changed;
        END $$
    """)
