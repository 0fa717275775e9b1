"""Let moderators remove comments.

A column `comments.removal_reason` that is there already becomes `removal_reason_before_0051`. Removed comments do not
count as comments of their post, and a deleted one is no longer removed.

Revision ID: 0051
Revises: 0050
"""

import sqlalchemy as sa

from alembic import op

revision = "0051"
down_revision = "0050"

RENAME = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'comments'::regclass AND attname = '{old}') THEN
            ALTER TABLE comments RENAME COLUMN {old} TO {new};
        END IF;
    END $$
"""
# Without placeholders, they are the functions of 0034.
COUNT = """
        CREATE OR REPLACE FUNCTION count_comments() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- A statement that writes no row fires its triggers all the same.
            IF TG_OP = 'INSERT' THEN
                INSERT INTO comment_stats (comment_id, post_id, parent_key)
                SELECT id, post_id, coalesce(parent_id, 0) FROM new_comments;
                PERFORM change_comment_counts(array_agg(post_id), array_agg(n))
                FROM (
                    SELECT post_id, count(*) AS n FROM new_comments WHERE deleted_at IS NULL{and_shown} GROUP BY post_id
                ) AS change HAVING count(*) > 0;
                PERFORM change_reply_counts(array_agg(parent_id), array_agg(n))
                FROM (
                    SELECT parent_id, count(*) AS n FROM new_comments WHERE parent_id IS NOT NULL GROUP BY parent_id
                ) AS change HAVING count(*) > 0;
            ELSIF TG_OP = 'DELETE' THEN
                PERFORM change_comment_counts(array_agg(post_id), array_agg(-n))
                FROM (
                    SELECT post_id, count(*) AS n FROM old_comments WHERE deleted_at IS NULL{and_shown} GROUP BY post_id
                ) AS change HAVING count(*) > 0;
                PERFORM change_reply_counts(array_agg(parent_id), array_agg(-n))
                FROM (
                    SELECT parent_id, count(*) AS n FROM old_comments WHERE parent_id IS NOT NULL GROUP BY parent_id
                ) AS change HAVING count(*) > 0;
            ELSE
                PERFORM change_comment_counts(array_agg(post_id), array_agg(n))
                FROM (
                    SELECT post_id, sum(n) AS n
                    FROM (
                        SELECT post_id, 1 AS n FROM new_comments WHERE deleted_at IS NULL{and_shown}
                        UNION ALL SELECT post_id, -1 FROM old_comments WHERE deleted_at IS NULL{and_shown}
                    ) AS changed
                    GROUP BY post_id HAVING sum(n) <> 0
                ) AS change HAVING count(*) > 0;
            END IF;
            RETURN NULL;
        END $$
"""
BURY = """
        CREATE OR REPLACE FUNCTION bury_comment() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.content := '';
            NEW.deleted_at := now();{forget}
            NEW.updated_at := now();
            NEW.version := OLD.version + 1;
            RETURN NEW;
        END $$
"""


def upgrade() -> None:
    op.execute(RENAME.format(old="removal_reason", new=f"removal_reason_before_{revision}"))
    op.add_column("comments", sa.Column("removal_reason", sa.String()))
    # 0052 validates it.
    op.execute("""
        ALTER TABLE comments ADD CONSTRAINT comments_removed_check
            CHECK (removal_reason IS NULL OR deleted_at IS NULL) NOT VALID
    """)
    op.execute(COUNT.format(and_shown=" AND removal_reason IS NULL"))
    op.execute(BURY.format(forget=" NEW.removal_reason := NULL;"))


def downgrade() -> None:
    # What a moderator removed is shown again.
    op.execute("UPDATE comments SET removal_reason = NULL WHERE removal_reason IS NOT NULL")
    op.execute(COUNT.format(and_shown=""))
    op.execute(BURY.format(forget=""))
    op.drop_column("comments", "removal_reason")
    op.execute(RENAME.format(old=f"removal_reason_before_{revision}", new="removal_reason"))
