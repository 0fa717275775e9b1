"""`GET /users/me/export`: a ZIP with everything of the account, and nothing else."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.main import app
from app.routers import export as router
from app.security import attempt_limits
from app.services import export
from tests.conftest import ROOT
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.everything import Everything, make_everything, naming_columns
from tests.fixtures import Person

PATH = "/users/me/export"
# Columns that name accounts, and why an export leaves out the rows that name the caller in them.
NOT_EXPORTED = {
    "blocks.blocked_id": "who blocks the caller stays unknown to them",
    "follows.followee_id": "follows belong to the follower",
    "notifications.actor_id": "notifications belong to the recipient",
    "deletions.user_id": "there is none while the account exists",
    "events.actor_id": "ids that the other files have; kept for days only",
    "events.user_id": "the same",
    "idempotency_keys.user_id": "repeated responses; kept for a day",
    "mail_tokens.user_id": "secrets",
    "moderation_log.moderator_id": "for moderators",
    "moderation_log.user_id": "for moderators; notifications and reasons tell the caller",
    "reports.resolver_id": "for moderators",
    "reports.user_id": "reports belong to the reporter",
    "recovery_codes.user_id": "secrets",
    "totps.user_id": "a secret; profile.json has the time",
    "user_stats.user_id": "counts of the rows",
}


def read(response: httpx2.Response) -> dict[str, Any]:
    """Return the content of each JSON file by its name without `.json`."""
    assert response.status_code == 200, response.text
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        names = [name for name in archive.namelist() if name.endswith(".json")]
        return {name.removesuffix(".json"): json.loads(archive.read(name)) for name in names}


@pytest.fixture
def everything(
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
) -> Everything:
    return make_everything(connection, make_person, make_post, make_comment)


def test_every_file_has_the_rows_of_the_account_and_no_others(
    client: TestClient, everything: Everything, rows: Rows
) -> None:
    me = everything.me

    files = read(client.get(PATH, headers=me.headers))

    ids = {name: [item["id"] for item in files[name]] for name in ("posts", "comments", "notifications", "sessions")}
    assert ids == {
        "posts": [everything.mine, everything.draft],
        "comments": [everything.answered, everything.unanswered],
        "notifications": [key for (key,) in rows("SELECT id FROM notifications WHERE user_id = :id", id=me.id)],
        "sessions": [me.session_id],
    }
    assert [item["title"] for item in files["posts"]] == ["my post", "my draft"]
    assert files["posts"][0]["tags"] == ["engines"]
    assert [item["description"] for item in files["posts"]] == ["In short", ""]
    assert [item["content"] for item in files["comments"]] == ["answered text", "unanswered text"]
    assert [item["post_id"] for item in files["votes"] + files["bookmarks"] + files["mutes"]] == [everything.theirs] * 3
    assert files["comment_votes"] == [{"comment_id": everything.answered}]
    assert [item["user_id"] for item in files["followed_users"]] == [everything.other.id]
    assert [item["name"] for item in files["followed_tags"]] == ["engines"]
    ((blocked,),) = rows("SELECT blocked_id FROM blocks WHERE blocker_id = :id", id=me.id)
    assert [item["user_id"] for item in files["blocked_users"]] == [blocked]
    assert [(item["name"], item["expires_at"], item["last_used_at"]) for item in files["api_keys"]] == [
        ("my key", None, None)
    ]
    assert [item["uses"] for item in files["invites"]] == [0]
    assert [item["url"] for item in files["webhooks"]] == ["https://example.com/lovelace"]
    assert [(item["event"], item["details"]) for item in files["security_events"]] == [("signed_in", {"n": 1})]
    described = ("id", "email", "username", "display_name", "bio", "image_url")
    assert {name: files["profile"][name] for name in described} == {
        "id": me.id, "email": me.email, "username": "lovelace", "display_name": "Countess", "bio": "About me",
        "image_url": "https://a.example/b",
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", files["profile"]["two_factor_since"])
    assert files["export"] == {"format": 1, "began_at": files["export"]["began_at"], "user_id": me.id}


def test_it_has_no_secrets_and_nothing_of_others(client: TestClient, everything: Everything, rows: Rows) -> None:
    content = json.dumps(read(client.get(PATH, headers=everything.me.headers)))

    for (value,) in rows("SELECT password_hash FROM users"):
        assert value not in content
    for hidden in ("secret-", "hidden report", "received", "an answer", everything.other.email, b"secret-key".hex()):
        assert hidden not in content


def test_values_are_those_of_the_rows(client: TestClient, everything: Everything, rows: Rows) -> None:
    files = read(client.get(PATH, headers=everything.me.headers))
    as_text = """to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

    stored = rows(f"SELECT id, title, content, published, tags, locked, {as_text} FROM posts ORDER BY id")
    mine = [row for row in stored if row[0] in {everything.mine, everything.draft}]

    columns = ("id", "title", "content", "published", "tags", "locked", "created_at")
    assert [tuple(item[name] for name in columns) for item in files["posts"]] == mine


def test_the_documented_files_and_fields_are_those_of_the_export(client: TestClient, everything: Everything) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    documented = {
        row[1]: re.findall(r"`(\w+)`", row[2])
        for row in re.finditer(r"^\| `(\w+)\.json` \| (.+?) \|", page, re.MULTILINE)
    }

    files = read(client.get(PATH, headers=everything.me.headers))

    assert list(files) == list(documented)
    for name, content in files.items():
        (item, *_) = content if isinstance(content, list) else [content]
        assert list(item) == documented[name], name


def test_every_column_that_names_an_account_is_exported_or_left_out_for_a_reason() -> None:
    exported = {f"{kind.owner.table.name}.{kind.owner.key}" for kind in export.KINDS}
    named = {f"{column.table.name}.{column.name}" for column in naming_columns()}

    missing = named - exported - NOT_EXPORTED.keys()
    assert not missing, f"export {sorted(missing)} in app/services/export.py, or say in NOT_EXPORTED why not"
    assert exported | NOT_EXPORTED.keys() == named, "a column is listed that does not exist"
    assert not exported & NOT_EXPORTED.keys()


def test_an_empty_account_has_empty_files(client: TestClient, person: Person) -> None:
    files = read(client.get(PATH, headers=person.headers))

    assert {name for name, content in files.items() if not content} == {
        kind.name for kind in export.KINDS if kind.name != "sessions"
    }


@pytest.mark.parametrize(("rows_in_batch", "bytes_in_batch"), [(1, 10**6), (3, 10**6), (500, 1), (500, 1000), (7, 7)])
def test_batches_of_any_size_have_each_row_once(
    client: TestClient,
    everything: Everything,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    rows_in_batch: int,
    bytes_in_batch: int,
) -> None:
    me = everything.me
    connection.execute(
        text("""
            INSERT INTO posts (owner_id, title, content)
            SELECT :me, 'n' || n, repeat('ä', n * 40) FROM generate_series(1, 30) AS n
        """),
        {"me": me.id},
    )
    # Many at the same time.
    connection.execute(
        text("INSERT INTO votes (post_id, user_id) SELECT id, :me FROM posts WHERE title LIKE 'n%'"), {"me": me.id}
    )
    whole = read(client.get(PATH, headers=me.headers))
    monkeypatch.setattr(export, "BATCH_ROWS", rows_in_batch)
    monkeypatch.setattr(export, "BATCH_BYTES", bytes_in_batch)

    in_batches = read(client.get(PATH, headers=me.headers))

    assert len(whole["posts"]) == 32
    assert len(whole["votes"]) == 31
    assert in_batches | {"export": 0} == whole | {"export": 0}


@pytest.mark.parametrize(
    "hide",
    [
        "INSERT INTO blocks (blocker_id, blocked_id) VALUES (:other, :me) RETURNING 1",
        "UPDATE users SET is_active = false WHERE id = :other AND :me > 0 RETURNING 1",
        "UPDATE comments SET owner_id = NULL WHERE owner_id = :other AND :me > 0 RETURNING 1",
    ],
    ids=["blocked by", "disabled", "deleted"],
)
def test_notifications_that_the_list_hides_are_not_exported(
    client: TestClient, everything: Everything, rows: Rows, hide: str
) -> None:
    me = everything.me

    def kinds(notifications: list[dict[str, object]]) -> list[object]:
        return [each["kind"] for each in notifications]

    of_moderators = ["moderation", "moderation"]
    assert kinds(client.get("/notifications", headers=me.headers).json()) == [*of_moderators, "comment"]
    rows(hide, other=everything.other.id, me=me.id)
    assert kinds(client.get("/notifications", headers=me.headers).json()) == of_moderators

    assert kinds(read(client.get(PATH, headers=me.headers))["notifications"]) == of_moderators


def test_the_answer_is_a_file_that_no_cache_keeps(client: TestClient, person: Person) -> None:
    response = client.get(PATH, headers=person.headers)

    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"] == f'attachment; filename="export-{person.id}.zip"'
    assert response.headers["Cache-Control"] == "no-store"


def test_an_account_exports_five_times_an_hour(client: TestClient, person: Person, other: Person) -> None:
    assert attempt_limits.EXPORT_OF_ACCOUNT.most == 5
    statuses = [client.get(PATH, headers=person.headers).status_code for _ in range(7)]

    assert statuses == [200] * 5 + [429] * 2
    assert client.get(PATH, headers=other.headers).status_code == 200


def test_another_export_of_the_account_has_to_wait(client: TestClient, person: Person, other: Person) -> None:
    assert attempt_limits.claim("export", str(person.id), kept=router.MAX_DURATION)

    refused = client.get(PATH, headers=person.headers)

    assert_refused(refused, 409, "export_in_progress")
    assert refused.headers["Retry-After"] == "10"
    assert client.get(PATH, headers=other.headers).status_code == 200
    attempt_limits.release("export", str(person.id))
    assert client.get(PATH, headers=person.headers).status_code == 200


def test_a_claim_that_a_killed_server_left_ends_by_itself(client: TestClient, person: Person, rows: Rows) -> None:
    assert attempt_limits.claim("export", str(person.id), kept=router.MAX_DURATION)
    rows("UPDATE allowances SET used_at = ARRAY[now() - interval '601 seconds'] RETURNING 1")

    assert client.get(PATH, headers=person.headers).status_code == 200


def test_a_worker_full_of_exports_refuses_more(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "MAX_EXPORTS", 0)

    unchecked = TestClient(app)  # `client` fails for every 5xx.
    assert_refused(unchecked.get(PATH, headers=person.headers), 503, "overloaded")
