"""Authorization of every operation in the OpenAPI document, for every kind of caller."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Boolean, DateTime, Float, Integer
from starlette.testclient import TestClient

from app.main import app
from app.models import Base
from app.models.base import Key
from tests.contract.conftest import Rows
from tests.fixtures import Person

DOCUMENT: dict[str, Any] = app.api.openapi()
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
CALLERS = ("owner", "other", "moderator", "admin", "anonymous")

# Statuses by kind of resource and operation, for: its owner, another user, a moderator, an admin, an anonymous caller.
OWNED: dict[str, dict[str, tuple[int, int, int, int, int]]] = {
    "a post": {
        "get_post": (200, 200, 200, 200, 401),
        "replace_post": (200, 403, 403, 403, 401),
        "change_post": (200, 403, 403, 403, 401),
        "delete_post": (204, 403, 204, 204, 401),
        "set_vote": (200, 200, 200, 200, 401),
        "remove_vote": (200, 200, 200, 200, 401),
        "list_comments": (200, 200, 200, 200, 401),
        "create_comment": (201, 201, 201, 201, 401),
        "lock_post": (403, 403, 200, 200, 401),
        "unlock_post": (403, 403, 200, 200, 401),
        "remove_post": (403, 403, 200, 200, 401),
        "restore_post": (403, 403, 200, 200, 401),
        "set_bookmark": (200, 200, 200, 200, 401),
        "remove_bookmark": (200, 200, 200, 200, 401),
        "get_mute": (200, 200, 200, 200, 401),
        "set_mute": (200, 200, 200, 200, 401),
        "remove_mute": (200, 200, 200, 200, 401),
    },
    "a draft": {
        "get_post": (200, 404, 200, 200, 401),
        "replace_post": (200, 404, 403, 403, 401),
        "change_post": (200, 404, 403, 403, 401),
        "delete_post": (204, 404, 204, 204, 401),
        "set_vote": (404, 404, 404, 404, 401),
        "remove_vote": (404, 404, 404, 404, 401),
        "list_comments": (200, 404, 200, 200, 401),
        "create_comment": (404, 404, 404, 404, 401),
        "lock_post": (403, 404, 200, 200, 401),
        "unlock_post": (403, 404, 200, 200, 401),
        "remove_post": (403, 404, 200, 200, 401),
        "restore_post": (403, 404, 200, 200, 401),
        "set_bookmark": (404, 404, 404, 404, 401),
        "remove_bookmark": (404, 404, 404, 404, 401),
        "get_mute": (404, 404, 404, 404, 401),
        "set_mute": (404, 404, 404, 404, 401),
        "remove_mute": (404, 404, 404, 404, 401),
    },
    "a comment": {
        "get_comment": (200, 200, 200, 200, 401),
        "change_comment": (200, 403, 403, 403, 401),
        "delete_comment": (204, 403, 204, 204, 401),
        "set_comment_vote": (200, 200, 200, 200, 401),
        "remove_comment_vote": (200, 200, 200, 200, 401),
        "remove_comment": (403, 403, 200, 200, 401),
        "restore_comment": (403, 403, 200, 200, 401),
    },
    "a comment on a draft": {
        "get_comment": (200, 404, 200, 200, 401),
        "change_comment": (200, 404, 403, 403, 401),
        "delete_comment": (204, 404, 204, 204, 401),
        "set_comment_vote": (404, 404, 404, 404, 401),
        "remove_comment_vote": (404, 404, 404, 404, 401),
        "remove_comment": (403, 404, 200, 200, 401),
        "restore_comment": (403, 404, 200, 200, 401),
    },
    "a removed comment": {
        "get_comment": (200, 404, 200, 200, 401),
        "change_comment": (200, 404, 403, 403, 401),
        "delete_comment": (204, 404, 204, 204, 401),
        "set_comment_vote": (404, 404, 404, 404, 401),
        "remove_comment": (403, 404, 200, 200, 401),
        "restore_comment": (403, 404, 200, 200, 401),
    },
    "a removed post": {
        "get_post": (200, 404, 200, 200, 401),
        "replace_post": (403, 404, 403, 403, 401),
        "change_post": (200, 404, 403, 403, 401),
        "delete_post": (204, 404, 204, 204, 401),
        "set_vote": (404, 404, 404, 404, 401),
        "list_comments": (200, 404, 200, 200, 401),
        "create_comment": (404, 404, 404, 404, 401),
        "lock_post": (403, 404, 200, 200, 401),
        "remove_post": (403, 404, 200, 200, 401),
        "restore_post": (403, 404, 200, 200, 401),
        "set_bookmark": (404, 404, 404, 404, 401),
        "set_mute": (404, 404, 404, 404, 401),
    },
    "an account": {
        "get_user": (200, 200, 200, 200, 200),
        "list_comments_of_user": (200, 200, 200, 200, 401),
        "get_feed_of_user": (200, 200, 200, 200, 401),
        "replace_user": (200, 403, 403, 200, 401),
        "change_user": (200, 403, 403, 200, 401),
        "delete_user": (204, 403, 403, 204, 401),
        "set_follow": (422, 200, 200, 200, 401),
        "remove_follow": (422, 200, 200, 200, 401),
        "list_followers": (200, 200, 200, 200, 401),
        "list_following": (200, 200, 200, 200, 401),
        "set_block": (422, 200, 200, 200, 401),
        "remove_block": (422, 200, 200, 200, 401),
        "ban_user": (403, 403, 200, 200, 401),
        "unban_user": (403, 403, 200, 200, 401),
        "remove_avatar_of_user": (403, 403, 200, 200, 401),
    },
    "an API key": {
        "get_api_key": (200, 404, 404, 404, 401),
        "delete_api_key": (204, 404, 404, 404, 401),
    },
    "a report": {
        "resolve_report": (403, 403, 200, 200, 401),
    },
    "a picture": {
        "get_media": (200, 404, 404, 404, 401),
        "change_media": (200, 404, 404, 404, 401),
        "delete_media": (204, 404, 404, 404, 401),
    },
    "a session": {
        "end_session": (204, 404, 404, 404, 401),
    },
    "an invite": {
        "delete_invite": (204, 404, 404, 404, 401),
    },
    "a webhook": {
        "get_webhook": (200, 404, 404, 404, 401),
        "change_webhook": (200, 404, 404, 404, 401),
        "delete_webhook": (204, 404, 404, 404, 401),
        "test_webhook": (202, 404, 404, 404, 401),
        "list_deliveries": (200, 404, 404, 404, 401),
        "redeliver": (202, 404, 404, 404, 401),
    },
}
# Operations on the caller's own account, operations for some roles only, and public operations.
OWN = {
    "list_posts", "create_post", "cast_vote", "get_me", "replace_me", "change_me", "delete_me", "list_my_votes",
    "search_users", "list_my_bookmarks", "list_my_blocks",
    "upload_media", "list_media", "set_avatar", "remove_avatar",
    "create_api_key", "list_api_keys", "list_sessions", "end_other_sessions", "logout",
    "get_totp", "create_totp", "confirm_totp", "delete_totp", "list_my_security_events", "request_email_verification",
    "list_tags", "get_tag", "get_feed_of_posts", "get_feed_of_tag", "follow_tag", "unfollow_tag", "get_home",
    "create_report", "list_notifications", "get_unread_count", "mark_notifications_read", "list_invites",
    "export_me", "create_webhook", "list_webhooks", "get_live", "create_live_ticket",
}  # fmt: skip
FOR_ROLES = {
    "list_users": (403, 403, 403, 200, 401), "create_invite": (403, 403, 201, 201, 401),
    "list_moderation_log": (403, 403, 200, 200, 401), "list_reports": (403, 403, 200, 200, 401),
}  # fmt: skip
PUBLIC = {
    "get_root", "get_livez", "get_readyz", "get_user_by_username", "sign_up", "login", "refresh_token",
    "get_sign_up_challenge", "get_media_file", "request_password_reset", "confirm_password_reset",
    "confirm_email_verification",
}  # fmt: skip

FOR_MODERATORS = {
    "create_invite",
    "resolve_report",
    "ban_user",
    "unban_user",
    "remove_avatar_of_user",
    "remove_post",
    "restore_post",
    "remove_comment",
    "restore_comment",
}

# Operations that change nothing here even where they are allowed.
CHANGES_NOTHING = {
    "remove_vote", "remove_comment_vote", "remove_bookmark", "remove_follow", "remove_block", "remove_mute",
    "unlock_post", "unban_user", "restore_post", "restore_comment", "remove_avatar_of_user",
}  # fmt: skip
# Of a session, when it was last seen changes with every request.
EVERYTHING = " UNION ALL ".join(
    f"SELECT '{table}', {'t.id' if table == 'sessions' else 't'}::text FROM {table} AS t"
    for table in sorted(Base.metadata.tables)
)


_COMMENT = """
    WITH written AS (
        INSERT INTO posts (owner_id, title, content, published) VALUES (:id, 't', 'c', {published}) RETURNING id
    )
    INSERT INTO comments (post_id, owner_id, content) SELECT id, :id, 'before' FROM written RETURNING id
"""
MADE = {
    "a report": "INSERT INTO reports (reporter_id, user_id, reason) VALUES (:id, :id, 'Spam') RETURNING id",
    "a removed comment": """
        WITH written AS (INSERT INTO posts (owner_id, title, content) VALUES (:id, 't', 'c') RETURNING id)
        INSERT INTO comments (post_id, owner_id, content, removal_reason)
        SELECT id, :id, 'before', 'Spam' FROM written RETURNING id
    """,
    "a removed post": """
        INSERT INTO posts (owner_id, title, content, published, removal_reason, published_before_removal)
        VALUES (:id, 'before', 'c', false, 'Spam', true) RETURNING id
    """,
    "a comment": _COMMENT.format(published=True),
    "a comment on a draft": _COMMENT.format(published=False),
    "an account": "SELECT CAST(:id AS bigint)",
    "an invite": """
        INSERT INTO invites (creator_id, token_hash, expires_at) VALUES (:id, '', now() + interval '1 day') RETURNING id
    """,
    # With a delivery of the same id.
    "a webhook": """
        WITH made AS (
            INSERT INTO webhooks (owner_id, url, events, secret) VALUES (:id, 'https://example.com/', '{comment}', '')
            RETURNING id
        )
        INSERT INTO webhook_deliveries (id, webhook_id, event, body, status)
        OVERRIDING SYSTEM VALUE SELECT id, id, 'comment', '{}', 'delivered' FROM made RETURNING id
    """,
    "a session": "INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id",
    "a picture": """
        INSERT INTO media (owner_id, name, width, height, bytes, blurhash)
        VALUES (:id, '0123456789abcdef0123456789abcdef', 1, 1, 1, 'x') RETURNING id
    """,
    "an API key": """
        WITH session AS (
            INSERT INTO sessions (user_id, kind, expires_at) VALUES (:id, 'api_key', now() + interval '1 day')
            RETURNING id
        )
        INSERT INTO api_keys (session_id, name, key_hash, scopes) SELECT id, 'key', 'hash', '{read}' FROM session
        RETURNING session_id
    """,
}


def test_every_operation_is_in_one_of_the_tables() -> None:
    owned = {operation for operations in OWNED.values() for operation in operations}
    listed = [*owned, *OWN, *FOR_ROLES, *PUBLIC]

    missing = set(OPERATIONS) - set(listed)
    assert not missing, f"say in tests/contract/test_authorization.py who may call {sorted(missing)}, and add them"
    assert sorted(listed) == sorted(OPERATIONS), "an operation is listed twice, or does not exist"


@pytest.fixture
def callers(make_person: Callable[..., Person]) -> dict[str, Person | None]:
    owner, other = make_person(), make_person()
    moderator, admin = make_person(role="moderator"), make_person(role="admin")
    return dict(zip(CALLERS, (owner, other, moderator, admin, None), strict=True))


Callers = dict[str, Person | None]


def call(client: TestClient, operation_id: str, caller: Person | None, thing_id: int) -> int:
    """Return the status of a valid request, which only the caller's rights can make fail."""
    method, path, operation = OPERATIONS[operation_id]
    bodies: dict[str, dict[str, object]]
    bodies = {"PostIn": {"title": "t", "content": "c"}, "PostChange": {"title": "t"}, "UserChange": {"username": "new"}}
    bodies |= {"CommentIn": {"content": "c"}, "CommentChange": {"content": "c"}, "InviteIn": {}}
    bodies |= {"ResolutionIn": {"action": "dismiss"}, "BanIn": {"reason": "spam"}, "RemovalIn": {"reason": "spam"}}
    bodies |= {"MediaChange": {"alt": "a"}, "WebhookPatch": {"enabled": False}}
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = bodies[content["schema"]["$ref"].rsplit("/", 1)[1]] if content else None
    address = re.sub(r"\{[^}]+\}", str(thing_id), path)
    return client.request(method, address, json=body, headers=caller.headers if caller else {}).status_code


@pytest.mark.parametrize(("thing", "operation_id"), [(thing, each) for thing, table in OWNED.items() for each in table])
@pytest.mark.parametrize("name", CALLERS)
def test_operations_on_resources_are_authorized_by_owner_and_role(
    client: TestClient,
    callers: Callers,
    make_post: Callable[..., int],
    rows: Rows,
    thing: str,
    operation_id: str,
    name: str,
) -> None:
    owner = callers["owner"]
    assert owner is not None
    if thing in {"a post", "a draft"}:
        thing_id = make_post(owner, published=thing == "a post")
    else:
        ((thing_id,),) = rows(MADE[thing], id=owner.id)
    before = sorted(rows(EVERYTHING))

    status = call(client, operation_id, callers[name], thing_id)

    assert status == OWNED[thing][operation_id][CALLERS.index(name)]
    changes = thing.startswith("a removed") or operation_id not in CHANGES_NOTHING
    is_allowed = status < 300 and OPERATIONS[operation_id][0] != "GET" and changes
    assert (sorted(rows(EVERYTHING)) != before) == is_allowed


@pytest.mark.parametrize("operation_id", FOR_ROLES)
@pytest.mark.parametrize("name", CALLERS)
def test_operations_for_some_roles_are_refused_to_others(
    client: TestClient, callers: Callers, operation_id: str, name: str
) -> None:
    assert call(client, operation_id, callers[name], 1) == FOR_ROLES[operation_id][CALLERS.index(name)]


@pytest.mark.parametrize("operation_id", ["change_user", "delete_user", "replace_user"])
def test_me_in_the_path_never_reaches_another_account(
    client: TestClient, callers: Callers, rows: Rows, operation_id: str
) -> None:
    """`me` in the path must mean the caller, regardless of ids in the request."""
    method, path, _ = OPERATIONS[operation_id]
    other, owner = callers["other"], callers["owner"]
    assert other is not None
    assert owner is not None
    theirs = "SELECT users::text FROM users WHERE id = :id"
    before = rows(theirs, id=owner.id)

    own = path.replace("{id}", "me")
    response = client.request(
        method, f"{own}?id={owner.id}&user_id={owner.id}", headers=other.headers,
        json={"id": owner.id, "user_id": owner.id, "username": "taken-over"} if method != "DELETE" else None,
    )  # fmt: skip

    assert response.status_code in {200, 204}
    assert rows(theirs, id=owner.id) == before


# Read-only fields.

MARKS = {"a number": 987654321, "a time": "2001-02-03T04:05:06Z", "a text": "canary-read-only"}
MARKS_STORED = ("987654321", "2001-02-03", "canary-read-only")


def mark(column: Any) -> object:
    """Return a recognisable value of the column's type, or the one that would grant most."""
    if column.name == "role":
        return "admin"
    kinds = {(Integer, Float, Key): MARKS["a number"], (DateTime,): MARKS["a time"], (Boolean,): False}
    return next((value for kind, value in kinds.items() if isinstance(column.type, kind)), MARKS["a text"])


TAKING_BODIES = [
    name
    for name, (_, _, each) in OPERATIONS.items()
    if "application/json" in each.get("requestBody", {}).get("content", {})
]


# Their bodies identify the caller and have nothing to store; without the right proof they refuse.
TAKE_PROOFS_ONLY = {
    "confirm_totp", "delete_totp", "refresh_token", "confirm_password_reset", "confirm_email_verification",
}  # fmt: skip


@pytest.mark.parametrize("operation_id", TAKING_BODIES)
def test_read_only_fields_are_never_stored(
    client: TestClient,
    callers: Callers,
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    rows: Rows,
    operation_id: str,
) -> None:
    """The request also has every column of every table that the body lacks."""
    method, path, operation = OPERATIONS[operation_id]
    owner = callers["owner"]
    assert owner is not None
    described = operation["requestBody"]["content"]["application/json"]["schema"]
    (reference, *_) = described.get("anyOf", [described])
    schema = DOCUMENT["components"]["schemas"][reference["$ref"].rsplit("/", 1)[1]]
    writable = set(schema["properties"])
    hostile = {
        column.name: mark(column)
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name not in writable
    }
    # Fields that only admins may set are in the schema for all callers.
    hostile |= {name: value for name, value in {"role": "admin", "is_active": False}.items() if name in writable}
    post_id = make_post(owner)
    ((media_id,),) = rows(MADE["a picture"], id=owner.id)
    good = {"title": "t", "content": "c", "post_id": post_id, "vote_dir": 1, "email": "new@person.example"}
    good |= {"name": "key", "up_to": 1, "scopes": ["read"], "code": "123456", "refresh_token": "x", "token": "x"}
    good |= {"reason": "spam", "until": None, "action": "dismiss", "note": "fine"}
    good |= {"alt": "a", "media_id": media_id, "url": "https://example.com/", "events": ["comment"], "scope": "own"}
    good |= {"password": "correct horse battery", "current_password": "correct horse battery"}
    body = hostile | {name: value for name, value in good.items() if name in writable}

    if operation_id == "create_report":
        body |= {"user_id": None, "comment_id": None}
    ((report_id,),) = rows(MADE["a report"], id=owner.id) if operation_id == "resolve_report" else [(0,)]
    things = {"/reports": report_id, "/users": owner.id, "/comments": make_comment(owner, post_id), "/media": media_id}
    if operation_id == "change_webhook":
        ((things["/webhooks"],),) = rows(MADE["a webhook"], id=owner.id)
    thing_id = next((thing_id for start, thing_id in things.items() if path.startswith(start)), post_id)
    caller = callers["moderator"] if operation_id in FOR_MODERATORS else owner
    assert caller is not None
    response = client.request(method, path.replace("{id}", str(thing_id)), json=body, headers=caller.headers)

    assert response.status_code < (500 if operation_id in TAKE_PROOFS_ONLY else 300), response.text
    everything = " ".join(text for _, text in rows(EVERYTHING)) + str(rows("SELECT sessions::text FROM sessions"))
    assert not [stored for stored in MARKS_STORED if stored in everything]
    assert rows("SELECT count(*) FROM users WHERE role = 'admin' OR NOT is_active") == [(1,)]
    assert rows("SELECT count(*) FROM comments WHERE version > 2 OR created_at < :then", then="2020-01-01") == [(0,)]
    assert rows("SELECT count(*) FROM posts WHERE version > 2 OR created_at < :then", then="2020-01-01") == [(0,)]
    assert str(MARKS["a number"]) not in response.text
