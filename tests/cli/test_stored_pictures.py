"""`python -m app doctor` finds pictures without a file and files without a picture, in a folder and in a bucket."""

import random
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from app.cli import stored_pictures
from app.cli.stored_pictures import examine_pictures
from app.config import get_settings
from app.database.sessions import transaction
from app.media.decoding import Picture
from app.media.storage import Folder, files_of, get_storage
from app.services import media
from tests.buckets import BucketServer
from tests.cli.test_commands import app
from tests.fixtures import Person

MakeMedia = Callable[..., dict[str, Any]]
MISSING, ORPHANS = "FAIL  pictures: ", "warn  pictures: files of "


@pytest.fixture(params=["folder", "bucket"])
def _storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "folder":
        monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")
    else:
        request.getfixturevalue("bucket").use(monkeypatch)


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")


def found(connection: Connection, *, is_full: bool = True) -> list[str]:
    return [str(finding) for finding in examine_pictures(connection, is_full=is_full)]


def put(name: str) -> None:
    for file_name in files_of(name):
        get_storage().put(file_name, BytesIO(b"x"))


@pytest.fixture
def picture(tmp_path: Path) -> Iterator[Picture]:
    with (tmp_path / "empty").open("wb+") as file:
        yield Picture(file, file, 1, 1, "x")


@pytest.mark.usefixtures("_storage")
@pytest.mark.parametrize("is_full", [False, True])
def test_differences_are_named_and_the_remedies_end_them(
    connection: Connection, person: Person, make_media: MakeMedia, picture: Picture, is_full: bool
) -> None:
    for _ in range(3):
        make_media(person)
    media.store(picture)  # An upload that was killed: its removal is pending.
    agree = f"ok    pictures: {'all' if is_full else 'a sample of'} files match the rows"
    assert found(connection, is_full=is_full) == [agree]

    _, lost, half = names = sorted(connection.scalars(text("SELECT name FROM media")))
    for file_name in (*files_of(lost), files_of(half)[1]):
        get_storage().delete(file_name)
    for orphan in (orphans := ["0" * 32, "f" * 32]):
        put(orphan)
    missing, unknown = found(connection, is_full=is_full)
    assert missing.startswith(f"{MISSING}2 pictures ({lost}, {half}) have no file; ")
    assert unknown.startswith(f"{ORPHANS}2 pictures ({orphans[0]}, {orphans[1]}) have no row; ")

    for finding, which in ((missing, (lost, half)), (unknown, orphans)):
        (remedy,) = re.findall(r"(?:DELETE|INSERT) .*'…'\)?", finding)
        for name in which:
            connection.execute(text(remedy.replace("…", name)))
    assert media.remove_files() == 4
    assert found(connection, is_full=is_full) == [agree]
    stored = {*get_storage().names()}
    pending = connection.scalar(text("SELECT name FROM media_removals"))
    assert stored == {*files_of(names[0]), *files_of(str(pending))}


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("seed", range(10))
def test_all_differences_are_found_whatever_the_batches(
    connection: Connection, person: Person, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_pictures, "BATCH_PICTURES", 4)
    chance = random.Random(seed)
    names = sorted(f"{chance.getrandbits(128):032x}" for _ in range(30))
    with_row, with_files = ({name for name in names if chance.random() < 0.8} for _ in range(2))
    for name in with_row:
        insert_row(connection, person, name)
    for name in with_files:
        put(name)
    missing, orphans = with_row - with_files, with_files - with_row
    assert missing
    assert orphans

    assert (named(found(connection), MISSING), named(found(connection), ORPHANS)) == (missing, orphans)
    seen: set[str] = set()
    for place in names:
        monkeypatch.setattr("secrets.token_hex", lambda _, place=place: place)
        some = found(connection, is_full=False)
        assert named(some, MISSING) <= missing
        assert named(some, ORPHANS) <= orphans
        seen |= named(some, MISSING) | named(some, ORPHANS)
    assert seen == missing | orphans


def insert_row(connection: Connection, owner: Person, name: str) -> None:
    values = "(owner_id, name, width, height, bytes, blurhash) VALUES (:owner, :name, 1, 1, 2, 'x')"
    connection.execute(text(f"INSERT INTO media {values}"), {"owner": owner.id, "name": name})


def named(findings: list[str], beginning: str) -> set[str]:
    return {name for each in findings if each.startswith(beginning) for name in re.findall("[0-9a-f]{32}", each)}


@pytest.mark.usefixtures("_folder")
def test_uploads_and_deletions_meanwhile_are_no_differences(
    connection: Connection, person: Person, picture: Picture
) -> None:
    rounds = 0

    def upload_and_delete() -> None:
        nonlocal rounds
        while rounds < 15:
            for _ in range(3):
                name = media.store(picture)
                with transaction() as db:
                    made = media.create(db, person.id, name, picture, None)
            with transaction() as db:
                media.remove(db, person.id, made.id)
            media.remove_files()
            rounds += 1

    thread = Thread(target=upload_and_delete)
    thread.start()
    findings = [found(connection)]
    while thread.is_alive():
        findings.append(found(connection))
    thread.join()

    assert (rounds, connection.scalar(text("SELECT count(*) FROM media"))) == (15, 30)
    assert {*chain(*findings)} == {"ok    pictures: all files match the rows"}


def test_a_picture_that_is_deleted_while_its_file_is_looked_for_is_no_difference(
    connection: Connection, database: Engine, person: Person, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.use(monkeypatch)
    insert_row(connection, person, "0" * 32)

    def delete_row(method: str, _: str) -> None:
        if method == "HEAD":
            with database.begin() as other:
                other.execute(text("DELETE FROM media"))

    bucket.fault = delete_row
    assert found(connection) == ["ok    pictures: all files match the rows"]
    assert connection.scalar(text("SELECT count(*) FROM media_removals")) == 1


def test_a_storage_that_is_lost_is_not_asked_for_every_file(
    connection: Connection, person: Person, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.use(monkeypatch)
    monkeypatch.setattr(stored_pictures, "MAX_FOUND", 5)
    for number in range(20):
        insert_row(connection, person, f"{number:032x}")

    (missing,) = found(connection)

    assert missing.startswith(f"{MISSING}5 or more pictures ({0:032x}, ")
    assert len([method for method, _ in bucket.asked if method == "HEAD"]) == 5


def test_a_storage_that_fails_is_a_failure_with_its_reason(
    connection: Connection, bucket: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "file")
    (finding,) = found(connection)
    assert finding == f"{MISSING}cannot read below {tmp_path / 'file'}: Not a directory; correct MEDIA_ROOT, " + (
        "or the MEDIA_S3_… settings"
    )
    bucket.use(monkeypatch)
    bucket.fail("GET", 403)
    (finding,) = found(connection)
    assert finding.startswith(f"{MISSING}the bucket failed: ")
    assert "403 Forbidden" in finding
    assert "\n" not in finding


def test_the_command_examines_pictures(tmp_path: Path, database: Engine) -> None:
    done = app("doctor", "--full", MEDIA_ROOT=str(tmp_path))
    assert "ok    pictures: all files match the rows" in done.stdout
    done = app("doctor", MEDIA_ROOT=str(tmp_path))
    assert "ok    pictures: a sample of files match the rows" in done.stdout
    Folder(tmp_path).put(files_of("0" * 32)[0], BytesIO(b"x"))
    assert f"{ORPHANS}1 pictures ({'0' * 32}) have no row" in app("doctor", MEDIA_ROOT=str(tmp_path)).stdout
    assert database
