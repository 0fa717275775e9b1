"""Up and down, one revision at a time, with rows in the tables: what a revision can hold stays."""

from collections.abc import Callable

from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for, revisions

FIRST_REVISION = {
    "posts": "0001", "users": "0003", "votes": "0006", "sessions": "0012", "idempotency_keys": "0013",
    "totps": "0017", "recovery_codes": "0017", "api_keys": "0018", "allowances": "0019",
    "security_events": "0021", "outgoing_mails": "0022", "mail_tokens": "0022", "deletions": "0027",
    "comments": "0034", "comment_votes": "0034",
    "tags": "0035", "post_tags": "0035", "tag_follows": "0035",
    "follows": "0039", "blocks": "0039", "bookmarks": "0040",
    "events": "0044", "notifications": "0044", "post_mutes": "0044",
    "invites": "0047",
    "moderation_log": "0049", "reports": "0049",
    "media": "0053", "media_removals": "0053",
    "webhooks": "0055", "webhook_deliveries": "0055", "event_positions": "0055",
}  # fmt: skip
ALL = tuple(FIRST_REVISION)
LABELS = {
    "posts": "SELECT title FROM posts",
    "users": "SELECT email FROM users",
    "votes": "SELECT email||' for '||title FROM votes JOIN users u ON u.id = user_id JOIN posts p ON post_id = p.id",
    "sessions": "SELECT email FROM sessions JOIN users ON users.id = user_id",
    "idempotency_keys": "SELECT key FROM idempotency_keys",
    "totps": "SELECT convert_from(sealed_secret, 'UTF8') FROM totps",
    "recovery_codes": "SELECT convert_from(code_hash, 'UTF8') FROM recovery_codes",
    "api_keys": "SELECT name FROM api_keys",
    "allowances": "SELECT limit_name FROM allowances",
    "security_events": "SELECT details->>'label' FROM security_events",
    "outgoing_mails": "SELECT address FROM outgoing_mails",
    "mail_tokens": "SELECT email FROM mail_tokens",
    "deletions": "SELECT email FROM deletions JOIN users ON users.id = user_id",
    "comments": "SELECT content FROM comments",
    "comment_votes": "SELECT content FROM comment_votes JOIN comments ON comments.id = comment_id",
    "tags": "SELECT name FROM tags",
    "post_tags": "SELECT title FROM post_tags JOIN posts ON posts.id = post_id",
    "tag_follows": "SELECT email FROM tag_follows JOIN users ON users.id = user_id",
    "follows": "SELECT email FROM follows JOIN users ON users.id = follower_id",
    "blocks": "SELECT email FROM blocks JOIN users ON users.id = blocker_id",
    "bookmarks": "SELECT email FROM bookmarks JOIN users ON users.id = user_id",
    "events": "SELECT kind FROM events",
    "notifications": "SELECT email FROM notifications JOIN users ON users.id = user_id",
    "post_mutes": "SELECT email FROM post_mutes JOIN users ON users.id = user_id",
    "invites": "SELECT email FROM invites JOIN users ON users.id = creator_id",
    "moderation_log": "SELECT reason FROM moderation_log",
    "reports": "SELECT reason FROM reports",
    "media": "SELECT alt FROM media",
    "media_removals": "SELECT name FROM media_removals",
    "webhooks": "SELECT url FROM webhooks",
    "webhook_deliveries": "SELECT body FROM webhook_deliveries",
    "event_positions": "SELECT consumer FROM event_positions",
}  # fmt: skip
PLACEHOLDER_EMAIL = "nobody@example.com"


def insert_rows(connection: Connection, revision: str, label: str) -> None:
    """Write rows, recognisable by the label, into every table of this revision."""
    values: dict[str, object] = {"label": label}
    if revision >= "0003":
        columns = "email, password" if revision < "0008" else "email, email_canonical, password_hash"
        places = ":label, 'hash'" if revision < "0008" else ":label, :label, 'hash'"
        values["user"] = connection.scalar(
            text(f"INSERT INTO users ({columns}) VALUES ({places}) RETURNING id"), values
        )
    columns, places = "title", ":label"
    if revision >= "0002":
        columns, places = f"{columns}, content", f"{places}, 'content'"
    if revision >= "0004":
        columns, places = f"{columns}, owner_id", f"{places}, :user"
    values["post"] = connection.scalar(text(f"INSERT INTO posts ({columns}) VALUES ({places}) RETURNING id"), values)
    if revision >= "0006":
        connection.execute(text("INSERT INTO votes (user_id, post_id) VALUES (:user, :post)"), values)
    if revision >= "0012":
        connection.execute(text("INSERT INTO sessions (user_id, expires_at) VALUES (:user, now())"), values)
    if revision >= "0013":
        connection.execute(
            text("""
                INSERT INTO idempotency_keys (user_id, key, fingerprint, status, body, expires_at)
                VALUES (:user, :label, '', 201, '', now())
            """),
            values,
        )
    if revision >= "0017":
        as_bytes = "convert_to(:label, 'UTF8')"
        connection.execute(text(f"INSERT INTO totps (user_id, sealed_secret) VALUES (:user, {as_bytes})"), values)
        connection.execute(text(f"INSERT INTO recovery_codes (user_id, code_hash) VALUES (:user, {as_bytes})"), values)
    if revision >= "0018":
        connection.execute(
            text("""
                INSERT INTO api_keys (session_id, name, scopes, key_hash)
                SELECT id, :label, '{read}', convert_to(:label, 'UTF8') FROM sessions WHERE user_id = :user
            """),
            values,
        )
    if revision >= FIRST_REVISION["allowances"]:
        connection.execute(
            text("INSERT INTO allowances (limit_name, key, used_at, expires_at) VALUES (:label, '', '{}', now())"),
            values,
        )
    if revision >= "0021":
        connection.execute(
            text("""
                INSERT INTO security_events (user_id, event, details)
                VALUES (:user, 'signed_in', jsonb_build_object('label', CAST(:label AS text)))
            """),
            values,
        )
    if revision >= "0022":
        connection.execute(text("INSERT INTO outgoing_mails (kind, address) VALUES ('email_changed', :label)"), values)
        connection.execute(
            text("""
                INSERT INTO mail_tokens (user_id, purpose, token_hash, email, expires_at)
                VALUES (:user, 'password_reset', CAST(:label AS bytea), :label, now())
            """),
            values,
        )
    if revision >= FIRST_REVISION["deletions"]:
        connection.execute(text("INSERT INTO deletions (user_id) VALUES (:user)"), values)
    _insert_later_rows(connection, revision, values)


def _insert_later_rows(connection: Connection, revision: str, values: dict[str, object]) -> None:
    if revision >= FIRST_REVISION["comments"]:
        connection.execute(
            text("""
                WITH written AS (
                    INSERT INTO comments (post_id, owner_id, content) VALUES (:post, :user, :label) RETURNING id
                )
                INSERT INTO comment_votes (comment_id, user_id) SELECT id, :user FROM written
            """),
            values,
        )
    if revision >= FIRST_REVISION["tags"]:
        connection.execute(text("UPDATE posts SET tags = ARRAY[:label] WHERE id = :post"), values)
        connection.execute(
            text("INSERT INTO tag_follows (user_id, tag_id) SELECT :user, id FROM tags WHERE name = :label"), values
        )
    if revision >= FIRST_REVISION["follows"]:
        other = "FROM users WHERE id <> :user ORDER BY id LIMIT 1"
        connection.execute(text(f"INSERT INTO follows (follower_id, followee_id) SELECT :user, id {other}"), values)
        connection.execute(text(f"INSERT INTO blocks (blocker_id, blocked_id) SELECT :user, id {other}"), values)
    if revision >= FIRST_REVISION["bookmarks"]:
        connection.execute(text("INSERT INTO bookmarks (user_id, post_id) VALUES (:user, :post)"), values)
    if revision >= FIRST_REVISION["notifications"]:
        connection.execute(text("INSERT INTO events (kind) VALUES (:label)"), values)
        connection.execute(text("INSERT INTO notifications (user_id, kind) VALUES (:user, 'moderation')"), values)
        connection.execute(text("INSERT INTO post_mutes (user_id, post_id) VALUES (:user, :post)"), values)
    if revision >= FIRST_REVISION["invites"]:
        connection.execute(
            text("""
                INSERT INTO invites (creator_id, token_hash, expires_at)
                VALUES (:user, convert_to(:label, 'UTF8'), now())
            """),
            values,
        )
    if revision >= FIRST_REVISION["reports"]:
        connection.execute(text("INSERT INTO moderation_log (action, reason) VALUES ('ban', :label)"), values)
        connection.execute(
            text("INSERT INTO reports (reporter_id, post_id, reason) VALUES (:user, :post, :label)"), values
        )
    if revision >= FIRST_REVISION["media"]:
        picture = "INSERT INTO media (owner_id, name, width, height, bytes, alt, blurhash, {}) VALUES (:user, {}, {})"
        shown = "md5(:label), 1, 1, 1, :label, 'x'"
        connection.execute(text(picture.format("is_avatar, unused_since", shown, "true, NULL")), values)
        if revision >= "0054":
            of_post = (
                "post_id, position, unused_since",
                shown.replace("md5(", "md5('of a post' || "),
                ":post, 1, NULL",
            )
            connection.execute(text(picture.format(*of_post)), values)
        connection.execute(text("INSERT INTO media_removals (name) VALUES (:label)"), values)
    if revision >= FIRST_REVISION["webhooks"]:
        connection.execute(
            text("""
                WITH made AS (
                    INSERT INTO webhooks (owner_id, url, events, secret)
                    VALUES (:user, :label, '{comment}', '') RETURNING id
                )
                INSERT INTO webhook_deliveries (webhook_id, event, body) SELECT id, 'comment', :label FROM made
            """),
            values,
        )
        connection.execute(text("INSERT INTO event_positions VALUES (:label, 1, 0)"), values)


def check_rows(connection: Connection, revision: str, expected: dict[str, set[str]]) -> None:
    for table in ALL:
        if revision < FIRST_REVISION[table]:
            expected[table].clear()
            continue
        found = set(connection.scalars(text(LABELS[table]))) - {PLACEHOLDER_EMAIL}
        assert found == expected[table], f"at {revision}, {table}"
    if revision >= "0011":
        wrong = connection.scalar(
            text("""
                SELECT count(*) FROM posts FULL JOIN post_stats ON post_id = id
                WHERE post_stats.votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE votes.post_id = posts.id)
            """)
        )
        assert wrong == 0, f"at {revision}"


def note_rows(revision: str, label: str, expected: dict[str, set[str]]) -> None:
    for table in ALL:
        if revision >= FIRST_REVISION[table]:
            expected[table].add(f"{label} for {label}" if table == "votes" else label)


def step(run: Callable[..., None], url: URL, target: str, missing: str) -> None:
    try:
        run(config_for(url), target)
    except Exception as error:
        raise AssertionError(f"{missing}: {error!r}") from error


def test_every_revision_keeps_its_rows_up_and_down_and_up_again(url: URL, looking: Connection) -> None:
    chain = revisions()
    expected: dict[str, set[str]] = {table: set() for table in ALL}
    for direction, path in (("up", chain), ("down", chain[-2::-1]), ("again", chain[1:])):
        for revision in path:
            if direction == "down":
                left = chain[chain.index(revision) + 1]
                step(command.downgrade, url, revision, f"revision {left} lacks a downgrade that keeps rows")
            else:
                step(command.upgrade, url, revision, f"revision {revision} lacks an upgrade that keeps rows")
            check_rows(looking, revision, expected)
            insert_rows(looking, revision, f"{direction} {revision}")
            note_rows(revision, f"{direction} {revision}", expected)
    assert len(expected["posts"]) == 3 * len(chain) - 2, "a post was lost"
    assert len(expected["votes"]) > 0


def test_downgrade_to_base_leaves_nothing_and_upgrade_begins_anew(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "head")
    insert_rows(looking, revisions()[-1], "before")

    command.downgrade(config_for(url), "base")

    left = """
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ '^alembic_version'
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """
    assert looking.scalars(text(left)).all() == []
    command.upgrade(config_for(url), "head")
    insert_rows(looking, revisions()[-1], "after")
    assert looking.scalars(text("SELECT title FROM posts")).all() == ["after"]
