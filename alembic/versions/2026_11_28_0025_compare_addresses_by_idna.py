"""Compare the domains of e-mail addresses by IDNA 2008, without folding `ß` into `ss`.

Revision ID: 0025
Revises: 0024
"""

import logging
import unicodedata
from collections.abc import Callable, Sequence

import idna
import sqlalchemy as sa

from alembic import context, op

revision = "0025"
down_revision = "0024"

BATCH_ROWS = 1_000
logger = logging.getLogger("alembic.runtime.migration")

Row = tuple[int, str, str]

# Rows are locked in the order of their ids, as in the application. A row keeps its old form if another row has the new
# one, or if its address changed after it was read.
UPDATE = sa.text("""
    WITH new AS (
        SELECT users.id, row.form
        FROM unnest(CAST(:ids AS bigint[]), CAST(:emails AS text[]), CAST(:forms AS text[])) AS row (id, email, form)
        JOIN users ON users.id = row.id AND users.email = row.email
        ORDER BY users.id FOR UPDATE OF users
    )
    UPDATE users SET email_canonical = new.form FROM new
    WHERE users.id = new.id
        AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_canonical = new.form AND other.id <> new.id)
""")


def new_form(email: str) -> str:
    """Return the canonical form as of this migration, which has its own copy so that it never changes."""
    email = email.strip()
    local, at, domain = email.rpartition("@")
    try:
        domain = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True, transitional=False).decode()
    except UnicodeError:
        return old_form(email)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower()) + at + domain


def old_form(email: str) -> str:
    return unicodedata.normalize("NFKC", email.strip()).casefold()


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if context.is_offline_mode():  # ASCII addresses do not change. PostgreSQL cannot compute the others.
            op.execute(r"""
                DO $$ BEGIN
                    IF EXISTS (SELECT FROM users WHERE email !~ '^[\x01-\x7f]*$') THEN
                        RAISE EXCEPTION 'e-mail addresses beyond ASCII: run alembic upgrade head, not its SQL';
                    END IF;
                END $$
            """)
        else:
            recompute(op.get_bind(), new_form)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        recompute(op.get_bind(), old_form)


def recompute(connection: sa.Connection, form: Callable[[str], str]) -> None:
    """Recompute `email_canonical` in batches that each commit.

    Another row may give a form up later in the same run, so passes repeat until one changes nothing.
    """
    while True:
        changed, kept = 0, list[int]()
        last = 0
        while rows := _rows_after(connection, last):
            last = rows[-1][0]
            # If several rows have the same form, the first gets it.
            wanted = {form(email): (row_id, email) for row_id, email, old in reversed(rows) if form(email) != old}
            changed += _update(connection, [(row_id, email, new) for new, (row_id, email) in wanted.items()])
            kept += [row_id for row_id, email, old in rows if form(email) != old]
        if not changed:
            break
        logger.info("recomputed the canonical form of %s e-mail addresses", changed)
    if kept:
        logger.warning(
            "%s accounts keep their old form, as another account has the new one (ids %s): see python -m app doctor",
            len(kept), ", ".join(map(str, kept[:20])),
        )  # fmt: skip


def _rows_after(connection: sa.Connection, last: int) -> list[Row]:
    """Return the next rows with non-ASCII addresses."""
    found = connection.execute(
        sa.text(r"""
            SELECT id, email, email_canonical FROM users
            WHERE id > :last AND email !~ '^[\x01-\x7f]*$' ORDER BY id LIMIT :rows
        """),
        {"last": last, "rows": BATCH_ROWS},
    )
    return [(row.id, row.email, row.email_canonical) for row in found]


def _update(connection: sa.Connection, rows: Sequence[Row]) -> int:
    """Return how many rows changed.

    A concurrent sign-up with one of the forms prevents only that row's update.
    """
    if not rows:
        return 0
    ids, emails, forms = zip(*rows, strict=True)
    try:
        return connection.execute(UPDATE, {"ids": [*ids], "emails": [*emails], "forms": [*forms]}).rowcount
    except sa.exc.IntegrityError:
        return 0 if len(rows) == 1 else sum(_update(connection, [row]) for row in rows)
