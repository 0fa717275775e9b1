"""Count the published posts of each account with triggers.

Their names come before those of `post_stats`, because triggers run in the order of their names, and rows of
`user_stats` are locked before those of `post_stats` (`app.database.locks`). Existing posts are counted in 0038.

Revision ID: 0037
Revises: 0036
"""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    # A statement that writes no row fires its triggers all the same.
    op.execute("""
        CREATE FUNCTION count_posts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                PERFORM add_user_counts(array_agg(owner_id), array_agg(n), array_agg(0), array_agg(0))
                FROM (SELECT owner_id, count(*) AS n FROM new_posts WHERE published GROUP BY owner_id) AS change
                HAVING count(*) > 0;
            ELSIF TG_OP = 'DELETE' THEN
                PERFORM subtract_user_counts(array_agg(owner_id), array_agg(n), array_agg(0), array_agg(0))
                FROM (SELECT owner_id, count(*) AS n FROM old_posts WHERE published GROUP BY owner_id) AS change
                HAVING count(*) > 0;
            ELSE
                UPDATE user_stats SET posts = 0 WHERE posts <> 0;
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION move_posts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.published THEN
                PERFORM subtract_user_counts(ARRAY[OLD.owner_id], '{1}', '{0}', '{0}');
            END IF;
            IF NEW.published THEN
                PERFORM add_user_counts(ARRAY[NEW.owner_id], '{1}', '{0}', '{0}');
            END IF;
            RETURN NULL;
        END $$
    """)
    for name, event, tables in (
        ("insert", "INSERT", "REFERENCING NEW TABLE AS new_posts"),
        ("delete", "DELETE", "REFERENCING OLD TABLE AS old_posts"),
        ("truncate", "TRUNCATE", ""),
    ):
        op.execute(f"""
            CREATE TRIGGER posts_count_{name} AFTER {event} ON posts {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION count_posts()
        """)
    op.execute("""
        CREATE TRIGGER posts_count_update AFTER UPDATE OF published, owner_id ON posts FOR EACH ROW
        WHEN (OLD.published <> NEW.published OR OLD.owner_id <> NEW.owner_id)
        EXECUTE FUNCTION move_posts()
    """)


def downgrade() -> None:
    for name in ("insert", "delete", "truncate", "update"):
        op.execute(f"DROP TRIGGER posts_count_{name} ON posts")
    op.execute("DROP FUNCTION move_posts()")
    op.execute("DROP FUNCTION count_posts()")
