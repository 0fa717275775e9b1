"""Tokens without a session id, signed by tutorial scripts (`TUTORIAL_DEFAULTS`)."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import BigInteger, Connection, Integer, Interval, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.config import get_settings
from app.models.session import FIRST_SESSIONLESS, sessionless_session_id
from app.security.access_tokens import AccessToken

USER_AGENT = "tokens that name no session"

# Without FOR KEY SHARE, a concurrent deletion of one account would fail all other tokens of the batch. Only accounts
# without a valid session are locked, so that an ordinary request writes nothing.
_ADMIT = text("""
    WITH asked AS MATERIALIZED (
        SELECT * FROM unnest(:numbers, :user_ids, :issued_at) AS asked (number, user_id, issued_at)
    ), admitted AS MATERIALIZED (
        SELECT asked.number, users.id AS user_id FROM asked JOIN users ON users.id = asked.user_id
        WHERE users.is_active AND users.role = 'user' AND (users.ban_reason IS NULL OR users.banned_until <= now())
            AND (to_timestamp(asked.issued_at) > users.sessionless_tokens_ended_at) IS NOT FALSE
            AND NOT EXISTS (SELECT FROM totps WHERE totps.user_id = users.id AND totps.confirmed_at IS NOT NULL)
    ), without_session AS MATERIALIZED (
        SELECT id FROM users
        WHERE id IN (SELECT user_id FROM admitted) AND NOT EXISTS (
            SELECT FROM sessions WHERE sessions.id = :first + users.id AND sessions.expires_at > now()
        )
        ORDER BY id FOR KEY SHARE
    ), opened AS (
        INSERT INTO sessions (id, user_id, expires_at, ends_at, user_agent)
        SELECT :first + id, id, now() + least(:lifetime, :idle_limit), now() + :lifetime, :user_agent
        FROM without_session
        ON CONFLICT (id) DO UPDATE SET created_at = now(), last_seen_at = now(),
            expires_at = excluded.expires_at, ends_at = excluded.ends_at
    )
    SELECT number FROM admitted
""").bindparams(
    bindparam("numbers", type_=ARRAY(Integer)),
    bindparam("user_ids", type_=ARRAY(BIGINT)),
    bindparam("issued_at", type_=ARRAY(BIGINT)),
    bindparam("first", FIRST_SESSIONLESS, type_=BigInteger),
    bindparam("lifetime", type_=Interval),
    bindparam("idle_limit", type_=Interval),
    bindparam("user_agent", USER_AGENT, type_=String),
)


def admit(connection: Connection, tokens: Sequence[AccessToken]) -> list[AccessToken]:
    """Return each token with its account's session for such tokens, opened if missing.

    Refused are tokens of accounts that are inactive or banned, have a role or a second factor, or ended such tokens
    since the token was issued. These are returned unchanged, so that they name the session that `adopt` made, if there
    is one.

    The session alone does not make a token valid, so call this at every request.
    """
    settings = get_settings()
    rows = connection.execute(
        _ADMIT,
        {
            "numbers": list(range(len(tokens))),
            "user_ids": [token.user_id for token in tokens],
            "issued_at": [token.sessionless_since for token in tokens],
            "lifetime": settings.session_lifetime,
            "idle_limit": settings.session_idle_limit,
        },
    )
    admitted = {row.number for row in rows}
    return [
        replace(token, session_id=sessionless_session_id(token.user_id)) if number in admitted else token
        for number, token in enumerate(tokens)
    ]
