"""`DELETE /users/me` and `DELETE /users/{id}`: no row of the account is left but what the contract names."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection
from starlette.testclient import TestClient

from app.models import Base
from app.services import deletion
from tests.contract.conftest import Rows
from tests.everything import Everything, make_everything, naming_columns
from tests.fixtures import Person

# What the contract says that stays: entries of the event log, which name ids only, for EVENTS_KEPT_DAYS, and the log of
# moderation and reports of others, for MODERATION_KEPT_DAYS.
KEPT = {
    "events.actor_id", "events.user_id",
    "moderation_log.moderator_id", "moderation_log.user_id", "reports.resolver_id", "reports.user_id",
}  # fmt: skip
# Exists only while an account with many rows is removed.
OF_REMOVALS = {"deletions.user_id"}
# Texts that only the account wrote, or that name it.
OWN_TEXTS = ("lovelace", "Countess", "About me", "my post", "my draft", "answered text", "secret-", "my key")


@pytest.fixture
def everything(
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
) -> Everything:
    return make_everything(connection, make_person, make_post, make_comment)


@pytest.fixture(params=["by oneself", "by an admin"])
def leave(request: pytest.FixtureRequest, client: TestClient, admin: Person) -> Callable[[Person], None]:
    """Delete the account, and remove its rows in the background."""

    def delete(person: Person) -> None:
        path, caller = (f"/users/{person.id}", admin) if request.param == "by an admin" else ("/users/me", person)
        assert client.delete(path, headers=caller.headers).status_code == 204
        deletion.work()

    return delete


def naming(rows: Rows, user_id: int) -> set[str]:
    """Return the columns in which a row names the account."""
    return {
        f"{column.table.name}.{column.name}"
        for column in naming_columns()
        if rows(f"SELECT 1 FROM {column.table.name} WHERE {column.name} = :id LIMIT 1", id=user_id)
    }


def test_no_row_names_the_account_afterwards_but_what_the_contract_keeps(
    everything: Everything, leave: Callable[[Person], None], rows: Rows
) -> None:
    user_id = everything.me.id
    everywhere = {f"{column.table.name}.{column.name}" for column in naming_columns()}
    assert naming(rows, user_id) == everywhere - OF_REMOVALS, "add a row to tests/everything.py for each"

    leave(everything.me)

    assert naming(rows, user_id) == KEPT
    assert rows("SELECT count(*) FROM users WHERE id = :id OR is_deleted", id=user_id) == [(0,)]


def test_an_account_without_comments_is_gone_with_the_answer(
    client: TestClient, everything: Everything, rows: Rows
) -> None:
    for table in ("comment_votes", "comments", "notifications WHERE comment_id IS NOT NULL"):
        rows(f"DELETE FROM {table} RETURNING 1")
    before = naming(rows, everything.me.id)
    assert len(before) > 20

    assert client.delete("/users/me", headers=everything.me.headers).status_code == 204

    assert naming(rows, everything.me.id) == KEPT


def test_no_text_of_the_account_is_left(everything: Everything, leave: Callable[[Person], None], rows: Rows) -> None:
    whole = " UNION ALL ".join(f"SELECT '{table}', t::text FROM {table} AS t" for table in sorted(Base.metadata.tables))

    def holding(words: str) -> set[str]:
        return {table for table, row in rows(whole) if words in row or words.encode().hex() in row}

    for words in OWN_TEXTS:
        assert holding(words), words

    leave(everything.me)

    # The name of a tag belongs to all of its users. Cleanup removes one without posts and followers.
    assert {words: holding(words) for words in OWN_TEXTS} == {words: set() for words in OWN_TEXTS}


def test_a_comment_with_replies_stays_as_a_tombstone_and_one_without_goes(
    client: TestClient, everything: Everything, leave: Callable[[Person], None], rows: Rows
) -> None:
    leave(everything.me)

    assert rows("SELECT id, owner_id, content FROM comments WHERE parent_id IS NULL") == [
        (everything.answered, None, "")
    ]
    path = f"/posts/{everything.theirs}/comments"
    (shown,) = client.get(path, headers=everything.other.headers).json()
    assert (shown["deleted"], shown["author"], shown["content"]) == (True, None, "")
    assert [reply["content"] for reply in shown["replies"]] == ["an answer"]
    assert client.get(f"/posts/{everything.mine}", headers=everything.other.headers).status_code == 404


def test_counts_of_others_equal_their_rows_afterwards(
    everything: Everything, leave: Callable[[Person], None], rows: Rows
) -> None:
    leave(everything.me)

    other = everything.other.id
    assert rows("SELECT posts, followers, following FROM user_stats WHERE user_id = :id", id=other) == [(1, 0, 0)]
    assert rows("SELECT votes, comments FROM post_stats WHERE post_id = :id", id=everything.theirs) == [(0, 1)]
    assert rows("SELECT votes, replies FROM comment_stats WHERE comment_id = :id", id=everything.answered) == [(1, 1)]
    assert rows("SELECT count(*) FROM tag_stats WHERE posts > 0 OR followers > 0") == [(0,)]


def test_a_removal_that_was_cut_off_goes_on_where_it_ended(
    client: TestClient, everything: Everything, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each batch another process goes on, as after the first was killed."""
    monkeypatch.setattr(deletion, "MIN_BATCH_ROWS", 1)
    monkeypatch.setattr(deletion, "MIN_BATCH_VOTES", 1)
    assert client.delete("/users/me", headers=everything.me.headers).status_code == 204
    assert client.get("/users/me", headers=everything.me.headers).status_code == 401
    rounds = 0
    while rows("SELECT 1 FROM deletions"):
        calls = iter([False])
        deletion.work(is_stopping=lambda: next(calls, True))  # noqa: B023 - called in this round only.
        rounds += 1
        assert rounds < 200

    assert rounds > 0
    assert naming(rows, everything.me.id) == KEPT
