"""Migration 0048, which lets API keys have the scope `feed`."""

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import IntegrityError

from alembic import command
from tests.migrations.conftest import config_for


def test_downgrade_deletes_feed_keys_and_their_sessions_only(url: URL, looking: Connection) -> None:
    config = config_for(url)
    command.upgrade(config, "0048")
    looking.execute(text("INSERT INTO users (id, email, email_canonical, password_hash) VALUES (1, '', '', '')"))
    for number, scopes in enumerate(("{feed}", "{read}", "{read,write}"), 1):
        values = {"id": number, "scopes": scopes}
        looking.execute(
            text("INSERT INTO sessions (id, user_id, kind, expires_at) VALUES (:id, 1, 'api_key', 'infinity')"), values
        )
        key = "INSERT INTO api_keys (session_id, name, scopes, key_hash) VALUES (:id, '', :scopes, int4send(:id))"
        looking.execute(text(key), values)

    command.downgrade(config, "0047")

    assert looking.scalars(text("SELECT id FROM sessions ORDER BY id")).all() == [2, 3]
    assert looking.scalars(text("SELECT scopes FROM api_keys ORDER BY 1")).all() == [["read"], ["read", "write"]]
    with pytest.raises(IntegrityError, match="api_keys_scopes_check"):
        looking.execute(text("UPDATE api_keys SET scopes = '{feed}'"))
