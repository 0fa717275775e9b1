"""The caller of the hostile tests: account 1, session 1 and post 1, as in the document's examples.

A case may delete them, so they are restored before the next one.
"""

from datetime import timedelta

from sqlalchemy import Engine, text

from app.security import access_tokens

ANONYMOUS = "anonymous"
CALLERS = ("user", "admin", ANONYMOUS)
PUT_BACK = """
    WITH caller AS (
        INSERT INTO users (id, email, email_canonical, password_hash, role) OVERRIDING SYSTEM VALUE
        VALUES (1, 'caller@hostile.example', 'caller@hostile.example', 'x', %(role)s)
        ON CONFLICT (id) DO UPDATE SET role = %(role)s, is_active = true
    ), session AS (
        INSERT INTO sessions (id, user_id, expires_at) OVERRIDING SYSTEM VALUE
        VALUES (1, 1, now() + interval '1 day') ON CONFLICT DO NOTHING
    )
    INSERT INTO posts (id, owner_id, title, content) OVERRIDING SYSTEM VALUE
    VALUES (1, 1, 'Top beaches in Florida', 'Check out these awesome beaches')
    ON CONFLICT (id) DO UPDATE SET owner_id = 1, published = true, removal_reason = NULL,
        published_before_removal = NULL
"""


def role_of(caller: str) -> str:
    return "user" if caller == ANONYMOUS else caller


def headers_of(caller: str) -> dict[str, str]:
    """Return the headers of the caller's client."""
    return {} if caller == ANONYMOUS else {"Authorization": f"Bearer {access_tokens.issue(1, 1, timedelta(days=1))}"}


def leave_room(database: Engine) -> None:
    """Reserve the ids up to 1000, so that no new row gets an id that a test restores.

    No id is given out twice, because the application of later tests still remembers which sessions have ended.
    """
    with database.begin() as connection:
        for sequence in ("users_id_seq", "sessions_id_seq", "posts_id_seq"):
            connection.execute(text(f"SELECT setval('{sequence}', greatest(last_value, 1000)) FROM {sequence}"))
