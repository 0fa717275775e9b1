"""Files of pictures: deleted with their rows, whenever a process stops, and kept out of reach otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.media import decoding
from app.media.storage import Folder, files_of
from app.services import cleanup, media
from tests import pictures
from tests.fixtures import Person

MakeMedia = Callable[..., dict[str, Any]]
NAME = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")


def count(connection: Connection, table: str) -> int:
    return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def test_storage_that_fails_is_reported_and_leaves_no_row(
    client: TestClient, connection: Connection, person: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "file")

    # Those of the contract tests allow no 503.
    monkeypatch.setitem(client.event_hooks, "response", [])

    response = client.post("/media", files={"file": ("a.png", pictures.png())}, headers=person.headers)

    assert (response.status_code, response.json()["code"]) == (503, "media_unavailable")
    assert (count(connection, "media"), count(connection, "media_removals")) == (0, 1)
    assert media.remove_files() == 0  # Tried again later.
    assert connection.scalar(text("SELECT due_at > now() FROM media_removals")) is True


def test_a_decoder_that_a_busy_machine_starves_may_be_tried_again(
    client: TestClient, connection: Connection, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_SECONDS", 0.001)
    monkeypatch.setitem(client.event_hooks, "response", [])

    response = client.post("/media", files={"file": ("a.png", pictures.png())}, headers=person.headers)

    assert (response.status_code, response.json()["code"]) == (503, "media_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert (count(connection, "media"), pictures.files()) == (0, set())


def test_files_of_an_upload_that_was_killed_are_deleted_later(connection: Connection, tmp_path: Path) -> None:
    with (tmp_path / "content").open("wb+") as content:
        content.write(b"x" * 100)
        content.seek(0)
        name = media.store(_Picture(content))  # type: ignore[arg-type]  # As before a crash: no row follows.
        assert pictures.files() == {*files_of(name)}

    assert media.remove_files() == 0
    assert pictures.files() == {*files_of(name)}
    connection.execute(text("UPDATE media_removals SET due_at = now()"))
    assert media.remove_files() == 1
    assert (pictures.files(), count(connection, "media_removals")) == (set(), 0)


class _Picture:
    def __init__(self, content: Any) -> None:
        self.file = self.preview = content


def test_a_picture_whose_files_are_due_for_removal_gets_no_row(
    connection: Connection, person: Person, database: Any
) -> None:
    from app.database.sessions import transaction
    from app.errors import MediaUnavailable
    from app.media.decoding import Picture

    assert database
    with pytest.raises(MediaUnavailable), transaction() as db:
        media.create(db, person.id, NAME, Picture(None, None, 1, 1, "x"), None)  # type: ignore[arg-type]
    assert count(connection, "media") == 0


def test_pictures_that_nothing_uses_are_removed_after_a_day(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    used, avatar, old, new = (make_media(person) for _ in range(4))
    client.post("/posts", json={"title": "t", "content": "c", "media_ids": [used["id"]]}, headers=person.headers)
    client.put("/users/me/avatar", json={"media_id": avatar["id"]}, headers=person.headers)
    connection.execute(
        text("UPDATE media SET unused_since = now() - interval '25 hours' WHERE id = :id"), {"id": old["id"]}
    )

    assert dict(cleanup.run())["media"] == 1
    media.remove_files()

    kept = {picture["id"] for picture in (used, avatar, new)}
    assert {*connection.scalars(text("SELECT id FROM media"))} == kept
    assert len(pictures.files()) == 6


def test_removal_continues_where_it_was_killed(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert client.delete(f"/media/{make_media(person)['id']}", headers=person.headers).status_code == 204
    deleted = Folder.delete
    calls: list[str] = []

    def delete_or_die(self: Folder, file_name: str) -> None:
        calls.append(file_name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        deleted(self, file_name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", delete_or_die)
        with pytest.raises(KeyboardInterrupt):
            media.remove_files()
    assert count(connection, "media_removals") == 3

    assert media.remove_files() == 3
    assert (pictures.files(), count(connection, "media_removals")) == (set(), 0)


def test_posts_and_profiles_equal_the_rows_after_any_write(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    first, second = make_media(person)["id"], make_media(person)["id"]
    body = {"title": "t", "content": "c", "media_ids": [first, second]}
    path = f"/posts/{client.post('/posts', json=body, headers=person.headers).json()['id']}"

    connection.execute(text("UPDATE media SET position = 3 - position"))
    assert [each["id"] for each in client.get(path, headers=person.headers).json()["Post"]["media"]] == [second, first]
    connection.execute(text("DELETE FROM media WHERE id = :id"), {"id": second})
    assert [each["id"] for each in client.get(path, headers=person.headers).json()["Post"]["media"]] == [first]
    connection.execute(text("UPDATE media SET post_id = NULL, position = NULL, is_avatar = true"))
    assert client.get(path, headers=person.headers).json()["Post"]["media"] == []
    assert client.get("/users/me", headers=person.headers).json()["avatar"]["id"] == first
    connection.execute(text("DELETE FROM media"))
    assert client.get("/users/me", headers=person.headers).json()["avatar"] is None
