"""Add canonical e-mail addresses, usernames, roles and is_active to accounts.

Revision ID: 0008
Revises: 0007
"""

import unicodedata

import idna
import sqlalchemy as sa
from alembic.util import CommandError

from alembic import context, op

revision = "0008"
down_revision = "0007"

BATCH_ROWS = 10_000


def canonical(email: str) -> str:
    """Return the canonical form as of migration 0025.

    A migration has its own copy, so that it never changes.

    Databases that ran this migration before 0025 existed have an older form, which 0025 updates. New databases get the
    new form here, because the older one mapped some addresses of different mailboxes to one form.
    """
    email = email.strip()
    local, at, domain = email.rpartition("@")
    try:
        domain = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True, transitional=False).decode()
    except UnicodeError:
        return unicodedata.normalize("NFKC", email).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower()) + at + domain


def upgrade() -> None:
    op.alter_column("users", "password", new_column_name="password_hash")
    op.add_column("users", sa.Column("email_canonical", sa.String()))
    op.add_column("users", sa.Column("username", sa.String()))
    op.add_column("users", sa.Column("role", sa.String(), server_default="user", nullable=False))
    op.add_column("users", sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    if context.is_offline_mode():
        backfill_in_sql()
    else:
        backfill(op.get_bind())
    op.alter_column("users", "email_canonical", nullable=False)
    op.alter_column("users", "username", nullable=False)
    op.create_unique_constraint("users_email_canonical_key", "users", ["email_canonical"])
    op.drop_constraint("users_email_key", "users")
    op.create_index("users_username_key", "users", [sa.text('lower(username COLLATE "C")')], unique=True)
    op.create_check_constraint(op.f("users_role_check"), "users", "role IN ('user', 'moderator', 'admin')")
    op.create_check_constraint(
        op.f("users_username_reserved_check"),
        "users",
        "lower(username COLLATE \"C\") !~ '^user[0-9]+$' OR username = 'user' || id::text",
    )
    op.execute("""
        CREATE FUNCTION name_user() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.username := 'user' || NEW.id::text;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER users_name BEFORE INSERT ON users
        FOR EACH ROW WHEN (NEW.username IS NULL) EXECUTE FUNCTION name_user()
    """)


def backfill(connection: sa.Connection) -> None:
    """Fill the new columns in batches, in Python, because PostgreSQL cannot compute the canonical form."""
    last = 0
    while rows := connection.execute(
        sa.text("SELECT id, email FROM users WHERE id > :last ORDER BY id LIMIT :rows"),
        {"last": last, "rows": BATCH_ROWS},
    ).all():
        connection.execute(
            sa.text("""
                UPDATE users SET email_canonical = new.email, username = 'user' || users.id::text
                FROM unnest(CAST(:ids AS bigint[]), CAST(:emails AS text[])) AS new (id, email)
                WHERE users.id = new.id
            """),
            {"ids": [row.id for row in rows], "emails": [canonical(row.email) for row in rows]},
        )
        last = rows[-1].id
    doubles = connection.execute(
        sa.text("SELECT array_agg(id ORDER BY id) FROM users GROUP BY email_canonical HAVING count(*) > 1 LIMIT 10")
    ).scalars()
    if found := "; ".join(", ".join(map(str, ids)) for ids in doubles):
        raise CommandError(
            f"users with the same e-mail address, but for its case (ids {found}): change or delete all but one of each"
        )


def backfill_in_sql() -> None:
    """Fill the new columns in SQL, for `--sql`.

    PostgreSQL refuses non-ASCII addresses.
    """
    op.execute(r"""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM users WHERE email !~ '^[\x01-\x7f]*$') THEN
                RAISE EXCEPTION 'e-mail addresses beyond ASCII: run alembic upgrade head, not its SQL';
            END IF;
        END $$
    """)
    op.execute(r"""
        UPDATE users SET email_canonical = lower(btrim(email, E' \t\n\x0b\f\r\x1c\x1d\x1e\x1f') COLLATE "C"),
            username = 'user' || id::text
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER users_name ON users")
    op.execute("DROP FUNCTION name_user()")
    op.drop_constraint("users_username_reserved_check", "users")
    op.drop_constraint("users_role_check", "users")
    op.drop_index("users_username_key", "users")
    op.create_unique_constraint("users_email_key", "users", ["email"])
    op.drop_constraint("users_email_canonical_key", "users")
    for column in ("is_active", "role", "username", "email_canonical"):
        op.drop_column("users", column)
    op.alter_column("users", "password_hash", new_column_name="password")
