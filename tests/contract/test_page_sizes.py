"""`limit` on every list: values above the maximum count as the maximum, invalid ones are refused."""

from collections.abc import Callable
from urllib.parse import urljoin

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.fixtures import Person

LARGEST = 100
LISTS = [
    "/posts", "/users", "/users/me/votes", "/users/me/security-events", "/sessions", "/api-keys", "/tags",
    "/users/me/bookmarks", "/users/me/blocks", "/posts/{id}/comments", "/users/{id}/comments", "/users/{id}/followers",
    "/users/{id}/following", "/home", "/notifications", "/moderation-log", "/reports", "/invites", "/media",
    "/webhooks", "/webhooks/{id}/deliveries",
]  # fmt: skip
# It has no next page.
WITHOUT_LINK = "/users/search"
# A hundred and one of everything, and all of it the admin's.
FILL = (
    "INSERT INTO posts (title, content, owner_id, tags) SELECT 't', 'c', :id, '{a}' FROM generate_series(1, 101)",
    "UPDATE posts SET tags = ARRAY['t' || id]",
    "INSERT INTO votes (post_id, user_id) SELECT id, :id FROM posts",
    "INSERT INTO users (email, email_canonical, password_hash) SELECT n, n, 'x' FROM generate_series(1, 101) AS n",
    "INSERT INTO bookmarks (post_id, user_id) SELECT id, :id FROM posts",
    "INSERT INTO blocks (blocker_id, blocked_id) SELECT :id, id FROM users WHERE id <> :id",
    "INSERT INTO follows (follower_id, followee_id) SELECT :id, id FROM users WHERE id <> :id",
    "INSERT INTO follows (follower_id, followee_id) SELECT id, :id FROM users WHERE id <> :id",
    """INSERT INTO comments (post_id, owner_id, content)
    SELECT post.id, :id, 'c' FROM (SELECT min(id) AS id FROM posts) AS post, generate_series(1, 101)""",
    "INSERT INTO notifications (user_id, kind) SELECT :id, 'moderation' FROM generate_series(1, 101)",
    "INSERT INTO reports (reporter_id, post_id, reason) SELECT :id, id, 'r' FROM posts",
    "INSERT INTO moderation_log (action, user_id) SELECT 'ban', :id FROM generate_series(1, 101)",
    """INSERT INTO media (owner_id, name, width, height, bytes, blurhash)
    SELECT :id, md5(n::text), 1, 1, 1, 'x' FROM generate_series(1, 101) AS n""",
    "INSERT INTO security_events (user_id, event) SELECT :id, 'signed_in' FROM generate_series(1, 101)",
    "INSERT INTO sessions (user_id, expires_at) SELECT :id, now() + interval '1 day' FROM generate_series(1, 101)",
    """INSERT INTO invites (creator_id, token_hash, expires_at)
    SELECT :id, sha256(n::text::bytea), now() + interval '1 day' FROM generate_series(1, 101) AS n""",
    """INSERT INTO webhooks (owner_id, url, events, secret)
    SELECT :id, 'https://example.com/', '{comment}', '' FROM generate_series(1, 101)""",
    """INSERT INTO webhook_deliveries (webhook_id, event, body)
    SELECT hook.id, 'comment', '{}' FROM (SELECT min(id) AS id FROM webhooks) AS hook, generate_series(1, 101)""",
    """WITH opened AS (
        INSERT INTO sessions (user_id, kind, expires_at, ends_at)
        SELECT :id, 'api_key', 'infinity', 'infinity' FROM generate_series(1, 101) RETURNING id
    ) INSERT INTO api_keys (session_id, name, scopes, key_hash)
    SELECT id, 'n', ARRAY['read'], sha256(id::text::bytea) FROM opened""",
)


@pytest.fixture
def admin(make_person: Callable[..., Person], connection: Connection) -> Person:
    """An admin with more of everything than a page holds."""
    person = make_person(role="admin")
    for statement in FILL:
        connection.execute(text(statement), {"id": person.id} if ":id" in statement else {})
    return person


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_above_the_largest_page_counts_as_the_largest_page(
    client: TestClient, connection: Connection, admin: Person, path: str
) -> None:
    post_id = connection.scalar(text("SELECT min(post_id) FROM comments"))
    webhook_id = connection.scalar(text("SELECT min(id) FROM webhooks"))
    ids = {"posts": post_id, "users": admin.id, "webhooks": webhook_id}
    path = path.replace("{id}", str(ids.get(path.split("/")[1])))
    largest = client.get(f"{path}?limit={LARGEST}", headers=admin.headers)
    assert len(largest.json()) == LARGEST

    for limit in ("101", "1000", "99999999999999999999"):
        response = client.get(f"{path}?limit={limit}", headers=admin.headers)
        assert (response.status_code, response.json()) == (200, largest.json())
        following = client.get(urljoin(path, response.links["next"]["url"]), headers=admin.headers)
        assert following.status_code == 200
        assert 1 <= len(following.json()) <= LARGEST
        assert following.json()[0] not in largest.json()


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", ""])
@pytest.mark.parametrize("path", LISTS)
def test_invalid_page_sizes_are_refused(
    client: TestClient, make_person: Callable[..., Person], path: str, limit: str
) -> None:
    path = path.replace("{id}", "1")
    response = client.get(f"{path}?limit={limit}", headers=make_person(role="admin").headers)

    assert_refused(response, 422, "validation_failed")


def test_the_table_has_every_list_that_takes_a_limit() -> None:
    from tests.contract.answers import PATHS

    paged = {
        path
        for path, operations in PATHS.items()
        if any(parameter["name"] == "limit" for parameter in operations.get("get", {}).get("parameters", []))
    }

    assert paged == {*LISTS, WITHOUT_LINK}
