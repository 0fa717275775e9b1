"""Show pictures on posts.

`posts.media` has the pictures of a post as JSON, kept by triggers of `media`, so that pages of posts need no look-up. A
change of a picture is a change of its post, with a new version. A column `media` that posts have already is kept as
`media_before_0054`.

Revision ID: 0054
Revises: 0053
"""

from alembic import op

revision = "0054"
down_revision = "0053"


def upgrade() -> None:
    op.execute(f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'posts'::regclass AND attname = 'media') THEN
                ALTER TABLE posts RENAME media TO media_before_{revision};
            END IF;
        END $$
    """)
    op.execute("ALTER TABLE posts ADD COLUMN media text NOT NULL DEFAULT '[]'")
    # No release writes pictures yet, so there is no row to check.
    op.execute("""
        -- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
        ALTER TABLE media ADD CONSTRAINT media_posts_fkey FOREIGN KEY (post_id) REFERENCES posts ON DELETE CASCADE
    """)
    op.execute("""
        CREATE FUNCTION media_of_post(post_id bigint) RETURNS text LANGUAGE sql STABLE AS $$
            SELECT coalesce(json_agg(media_as_json(media) ORDER BY media.position, media.id)::text, '[]')
            FROM media WHERE media.post_id = media_of_post.post_id
        $$
    """)
    # A post that is being deleted has no row any more.
    op.execute("""
        CREATE FUNCTION show_media(post_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM posts WHERE id = ANY (post_ids) ORDER BY id FOR NO KEY UPDATE;
            UPDATE posts SET media = media_of_post(id), version = version + 1, updated_at = now()
            WHERE id = ANY (post_ids) AND media <> media_of_post(id);
        END $$
    """)
    op.execute("""
        CREATE FUNCTION show_inserted_media() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM show_media(array_agg(post_id)) FROM new_media WHERE post_id IS NOT NULL HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION show_updated_media() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM show_media(array_agg(post_id)) FROM (
                SELECT post_id FROM old_media WHERE post_id IS NOT NULL
                UNION SELECT post_id FROM new_media WHERE post_id IS NOT NULL
            ) AS changed HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION show_deleted_media() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM show_media(array_agg(post_id)) FROM old_media WHERE post_id IS NOT NULL HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    for event, tables, function in (
        ("INSERT", "NEW TABLE AS new_media", "show_inserted_media"),
        ("UPDATE", "OLD TABLE AS old_media NEW TABLE AS new_media", "show_updated_media"),
        ("DELETE", "OLD TABLE AS old_media", "show_deleted_media"),
    ):
        op.execute(f"""
            CREATE TRIGGER {function} AFTER {event} ON media REFERENCING {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION {function}()
        """)


def downgrade() -> None:
    for function in ("show_inserted_media", "show_updated_media", "show_deleted_media"):
        op.execute(f"DROP TRIGGER {function} ON media")
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP FUNCTION show_media(bigint[])")
    op.execute("DROP FUNCTION media_of_post(bigint)")
    # Without this reference, the pictures are used by nothing.
    op.execute("UPDATE media SET post_id = NULL, position = NULL, unused_since = now() WHERE post_id IS NOT NULL")
    op.drop_constraint("media_posts_fkey", "media")
    op.drop_column("posts", "media")
