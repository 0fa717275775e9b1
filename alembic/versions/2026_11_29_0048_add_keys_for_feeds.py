"""Let API keys have the scope `feed` alone, for the addresses of Atom feeds.

Revision ID: 0048
Revises: 0047
"""

from alembic import op

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    _allow("{feed}", "{read}", "{read,write}")


def downgrade() -> None:
    # Their sessions are deleted, and the keys with them.
    op.execute("DELETE FROM sessions USING api_keys WHERE session_id = id AND scopes = '{feed}'")
    _allow("{read}", "{read,write}")


def _allow(*scopes: str) -> None:
    allowed = ", ".join(f"'{each}'" for each in scopes)
    # An account has at most `MAX_API_KEYS`, so checking the rows takes a moment.
    op.execute(f"""
        ALTER TABLE api_keys
            -- squawk-ignore ban-drop-constraint
            DROP CONSTRAINT api_keys_scopes_check,
            -- squawk-ignore constraint-missing-not-valid
            ADD CONSTRAINT api_keys_scopes_check CHECK (scopes IN ({allowed}))
    """)
