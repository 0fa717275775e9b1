"""One of everything: an account with a row in every table that can name an account."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Column, Connection, text

from app.models import Base
from tests.fixtures import Person

# A foreign key to an account, or a column that has the id of an account without one.
NAMES = {"user_id", "owner_id", "actor_id", "creator_id", "moderator_id", "resolver_id"}


def naming_columns() -> list[Column[int]]:
    """Return the columns that have ids of accounts, in the order of their tables' names."""
    return [
        column
        for _, table in sorted(Base.metadata.tables.items())
        for column in table.columns
        if column.name in NAMES or any(key.column.table.name == "users" for key in column.foreign_keys)
    ]


# `me` is the account, `other` an account with which it has to do, `theirs` a post of that account.
STATEMENTS = (
    "UPDATE users SET display_name = 'Countess', bio = 'About me', image_url = 'https://a.example/b' WHERE id = :me",
    "UPDATE posts SET description = 'In short' WHERE id = :mine",
    "INSERT INTO votes (post_id, user_id) VALUES (:theirs, :me), (:mine, :other)",
    "INSERT INTO bookmarks (post_id, user_id) VALUES (:theirs, :me), (:mine, :other)",
    "INSERT INTO post_mutes (post_id, user_id) VALUES (:theirs, :me), (:mine, :other)",
    "INSERT INTO follows (follower_id, followee_id) VALUES (:me, :other), (:other, :me)",
    "INSERT INTO blocks (blocker_id, blocked_id) VALUES (:me, :third), (:third, :me)",
    "INSERT INTO tag_follows (user_id, tag_id) SELECT :me, id FROM tags WHERE name = 'engines'",
    "INSERT INTO comment_votes (comment_id, user_id) VALUES (:answered, :me), (:answered, :other)",
    """INSERT INTO notifications (user_id, kind, actor_id, post_id, comment_id)
    VALUES (:me, 'comment', :other, :mine, :received), (:other, 'comment', :me, :theirs, :answered)""",
    "INSERT INTO notifications (user_id, kind, actor_id) VALUES (:other, 'follow', :me)",
    """INSERT INTO notifications (user_id, kind, post_id)
    VALUES (:me, 'moderation', NULL), (:me, 'moderation', :mine), (:other, 'moderation', :theirs)""",
    """INSERT INTO events (kind, actor_id, user_id, post_id)
    VALUES ('comment', :me, NULL, :theirs), ('notification', :other, :me, :mine)""",
    "INSERT INTO totps (user_id, sealed_secret, confirmed_at) VALUES (:me, 'secret-seal', now())",
    "INSERT INTO recovery_codes (user_id, code_hash) VALUES (:me, 'secret-code')",
    """INSERT INTO mail_tokens (user_id, purpose, token_hash, email, expires_at)
    VALUES (:me, 'password_reset', 'secret-token', :email, now() + interval '1 day')""",
    """INSERT INTO idempotency_keys (user_id, key, fingerprint, status, body, expires_at)
    VALUES (:me, 'k', '', 201, 'secret-body', now() + interval '1 day')""",
    "INSERT INTO security_events (user_id, event, details) VALUES (:me, 'signed_in', '{\"n\": 1}')",
    "INSERT INTO reports (reporter_id, user_id, reason) VALUES (:me, :other, 'Spam'), (:other, :me, 'hidden report')",
    """INSERT INTO reports (reporter_id, user_id, reason, resolved_at, resolver_id, action)
    VALUES (:other, :third, 'Spam', now(), :me, 'dismiss')""",
    "INSERT INTO moderation_log (moderator_id, action, user_id) VALUES (:me, 'unban', :third), (:other, 'ban', :me)",
    """INSERT INTO media (owner_id, name, width, height, bytes, alt, blurhash)
    VALUES (:me, md5('mine'), 1, 1, 1, 'A moth', 'x')""",
    """INSERT INTO invites (creator_id, token_hash, expires_at)
    VALUES (:me, 'secret-invite', now() + interval '1 day')""",
    """INSERT INTO webhooks (owner_id, url, events, secret)
    VALUES (:me, 'https://example.com/lovelace', '{comment}', 'secret-of-webhook')""",
    """WITH opened AS (
        INSERT INTO sessions (user_id, kind, expires_at, ends_at) VALUES (:me, 'api_key', 'infinity', 'infinity')
        RETURNING id
    ) INSERT INTO api_keys (session_id, name, scopes, key_hash)
    SELECT id, 'my key', '{read}', 'secret-key' FROM opened""",
)


@dataclass(frozen=True)
class Everything:
    """The account, and ids of rows of others that are connected with it."""

    me: Person
    other: Person
    mine: int
    draft: int
    theirs: int
    answered: int
    unanswered: int
    received: int


def make_everything(
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
) -> Everything:
    """Make an account with a row in every table that names it."""
    me, other, third = make_person(username="lovelace", email="lovelace@example.com"), make_person(), make_person()
    mine, draft = make_post(me, title="my post", tags=["engines"]), make_post(me, title="my draft", published=False)
    theirs = make_post(other)
    answered, unanswered = (
        make_comment(me, theirs, content="answered text"),
        make_comment(me, theirs, content="unanswered text"),
    )
    make_comment(other, theirs, parent_id=answered, content="an answer")
    received = make_comment(other, mine, content="received")
    made = {
        "me": me.id, "other": other.id, "third": third.id, "mine": mine, "theirs": theirs, "answered": answered,
        "received": received, "email": me.email,
    }  # fmt: skip
    for statement in STATEMENTS:
        connection.execute(text(statement), {name: value for name, value in made.items() if f":{name}" in statement})
    return Everything(me, other, mine, draft, theirs, answered, unanswered, received)
