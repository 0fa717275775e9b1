"""Create pictures, and avatars of accounts.

`users.avatar` has the picture of a profile as JSON, kept by a trigger, so that lists of users need no look-up. When
the row of a picture is deleted, a trigger writes a row of `media_removals`, and the background worker then deletes the
files. Names that another relation or column has are freed first: `media` becomes `media_before_0053`,
and `users.avatar` becomes `users.avatar_before_0053`. Nothing in them changes.

Revision ID: 0053
Revises: 0052
"""

import sqlalchemy as sa

from alembic import op

revision = "0053"
down_revision = "0052"

RELATIONS = (
    "media",
    "media_id_seq",
    "media_pkey",
    "media_name_key",
    "media_owner_id_id_idx",
    "media_owner_id_key",
    "media_post_id_idx",
    "media_unused_since_idx",
    "media_removals",
    "media_removals_pkey",
    "media_removals_due_at_idx",
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
            IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'avatar') THEN
                ALTER TABLE users RENAME avatar TO avatar_before_{revision};
            END IF;
        END $$
    """)
    op.execute("ALTER TABLE users ADD COLUMN avatar text")
    op.create_table(
        "media",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("alt", sa.String(), nullable=True),
        sa.Column("blurhash", sa.String(), nullable=False),
        sa.Column("post_id", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("is_avatar", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("unused_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="media_pkey"),
        sa.UniqueConstraint("name", name="media_name_key"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="media_users_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("name ~ '^[0-9a-f]{32}$'", name=op.f("media_name_check")),
        sa.CheckConstraint(
            "(post_id IS NOT NULL)::int + is_avatar::int + (unused_since IS NOT NULL)::int = 1",
            name=op.f("media_use_check"),
        ),
        sa.CheckConstraint("(post_id IS NULL) = (position IS NULL)", name=op.f("media_position_check")),
    )
    op.create_index("media_owner_id_id_idx", "media", ["owner_id", "id"])
    op.create_index("media_owner_id_key", "media", ["owner_id"], unique=True, postgresql_where=sa.text("is_avatar"))
    op.create_index("media_post_id_idx", "media", ["post_id"], postgresql_where=sa.text("post_id IS NOT NULL"))
    op.create_index(
        "media_unused_since_idx", "media", ["unused_since"], postgresql_where=sa.text("unused_since IS NOT NULL")
    )
    op.create_table(
        "media_removals",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="media_removals_pkey"),
    )
    op.create_index("media_removals_due_at_idx", "media_removals", ["due_at"])
    op.execute("""
        CREATE FUNCTION media_as_json(picture media) RETURNS json LANGUAGE sql STABLE AS $$
            SELECT json_build_object(
                'id', picture.id, 'name', picture.name, 'width', picture.width, 'height', picture.height,
                'alt', picture.alt, 'blurhash', picture.blurhash, 'bytes', picture.bytes
            )
        $$
    """)
    # An account that is being deleted has no row any more.
    op.execute("""
        CREATE FUNCTION show_avatars(user_ids bigint[]) RETURNS void LANGUAGE sql AS $$
            UPDATE users SET avatar = shown.avatar
            FROM (
                SELECT id, (
                    SELECT media_as_json(media)::text FROM media WHERE media.owner_id = account.id AND is_avatar
                ) AS avatar
                FROM users AS account WHERE id = ANY (user_ids) ORDER BY id
            ) AS shown
            WHERE users.id = shown.id AND users.avatar IS DISTINCT FROM shown.avatar
        $$
    """)
    op.execute("""
        CREATE FUNCTION media_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM show_avatars(array_agg(owner_id)) FROM new_media WHERE is_avatar HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION media_updated() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM show_avatars(array_agg(owner_id)) FROM (
                SELECT owner_id FROM old_media WHERE is_avatar UNION SELECT owner_id FROM new_media WHERE is_avatar
            ) AS changed HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION media_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO media_removals (name) SELECT name FROM old_media ORDER BY name
            ON CONFLICT (name) DO UPDATE SET due_at = now();
            PERFORM show_avatars(array_agg(owner_id)) FROM old_media WHERE is_avatar HAVING count(*) > 0;
            RETURN NULL;
        END $$
    """)
    for event, tables, function in (
        ("INSERT", "NEW TABLE AS new_media", "media_inserted"),
        ("UPDATE", "OLD TABLE AS old_media NEW TABLE AS new_media", "media_updated"),
        ("DELETE", "OLD TABLE AS old_media", "media_deleted"),
    ):
        op.execute(f"""
            CREATE TRIGGER {function} AFTER {event} ON media REFERENCING {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION {function}()
        """)


def downgrade() -> None:
    for function in ("media_inserted", "media_updated", "media_deleted"):
        op.execute(f"DROP TRIGGER {function} ON media")
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP FUNCTION show_avatars(bigint[])")
    op.execute("DROP FUNCTION media_as_json(media)")
    op.drop_table("media_removals")
    op.drop_table("media")
    op.drop_column("users", "avatar")
