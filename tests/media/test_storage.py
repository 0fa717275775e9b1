"""Both kinds of storage do the same: in a folder, and in a bucket."""

from io import BytesIO
from pathlib import Path

import pytest

from app.config import get_settings
from app.media.bucket import PART_BYTES, Bucket
from app.media.storage import Folder, Storage, StorageError, files_of, get_storage
from tests.buckets import PAGE_SIZE, BucketServer

NAME = "0123456789abcdef" * 2


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "folder":
        monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")
    else:
        request.getfixturevalue("bucket").use(monkeypatch)
    return get_storage()


def test_the_settings_name_the_storage(tmp_path: Path, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "media_root", tmp_path)
    assert isinstance(get_storage(), Folder)
    assert get_storage() is get_storage()
    bucket.use(monkeypatch)
    assert isinstance(get_storage(), Bucket)
    assert get_storage() is get_storage()


def test_a_file_is_stored_measured_read_in_parts_and_deleted(storage: Storage) -> None:
    file_name, preview = files_of(NAME)
    content = BytesIO(b"left out: 0123456789")
    content.seek(10)
    storage.put(file_name, content)

    assert storage.size(file_name) == 10
    assert b"".join(storage.read(file_name)) == b"0123456789"
    assert b"".join(storage.read(file_name, 3)) == b"3456789"
    assert b"".join(storage.read(file_name, 3, 4)) == b"3456"
    assert b"".join(storage.read(file_name, 9, 1)) == b"9"
    assert (storage.size(preview), [*storage.read(preview)], [*storage.read(preview, 2, 3)]) == (None, [], [])
    for _ in range(2):
        storage.delete(file_name)
        assert storage.size(file_name) is None
        assert [*storage.names()] == []


def test_a_large_file_is_stored_and_read_in_chunks(storage: Storage, request: pytest.FixtureRequest) -> None:
    content = bytes(range(256)) * (2 * PART_BYTES // 256) + b"the end"
    storage.put(f"{NAME}.webp", BytesIO(content))

    assert storage.size(f"{NAME}.webp") == len(content)
    chunks = [*storage.read(f"{NAME}.webp", 5)]
    assert b"".join(chunks) == content[5:]
    assert max(map(len, chunks)) <= 1 << 18
    if not isinstance(storage, Folder):
        asked = request.getfixturevalue("bucket").asked
        assert len([path for method, path in asked if method == "PUT" and "partNumber" in path]) == 3


def test_names_are_in_order_from_anywhere_and_only_those_of_pictures(
    storage: Storage, request: pytest.FixtureRequest
) -> None:
    written = [f"{number:02x}" * 16 for number in (0, 1, 10, 160, 255)]
    for name in written:
        for file_name in files_of(name):
            storage.put(file_name, BytesIO(b"x"))
    if isinstance(storage, Folder):
        (storage.root / "00" / "notes.txt").touch()
        (storage.root / "lost+found").mkdir()
        (storage.root / ".rsync-filter").touch()
    else:
        bucket = request.getfixturevalue("bucket")
        for key in ("notes.txt", f"{NAME}.webp", f"zz/{NAME}.webp", f"backup/01/{NAME}.webp"):
            bucket.write(key, b"x")
        bucket.asked.clear()

    expected = sorted(file_name for name in written for file_name in files_of(name))
    assert [*storage.names()] == expected
    for place, file_name in enumerate(expected):
        assert [*storage.names(file_name)] == expected[place + 1 :]
    if not isinstance(storage, Folder):
        assert len(bucket.asked) > len(expected) / PAGE_SIZE, "several pages"


@pytest.mark.parametrize(
    "name", ["../x.webp", "/etc/passwd", NAME, f"{NAME}.png", f"{NAME}.webp/../x", f"{NAME}.webp\n", ""]
)
def test_other_names_are_refused(storage: Storage, name: str) -> None:
    for call in (storage.size, storage.delete, lambda name: [*storage.read(name)]):
        with pytest.raises(ValueError, match="not a name"):
            call(name)
    with pytest.raises(ValueError, match="not a name"):
        storage.put(name, BytesIO(b"x"))


def test_incomplete_files_of_a_folder_are_named_and_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    file_name, preview = files_of(NAME)
    folder.put(file_name, BytesIO(b"x"))
    (tmp_path / NAME[:2] / f"{NAME}-400.part").touch()

    assert [*folder.names()] == [preview, file_name]
    folder.delete(preview)
    assert [path.name for path in (tmp_path / NAME[:2]).iterdir()] == [file_name]


def test_a_folder_that_cannot_be_used_is_an_error_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write below"):
        Folder(tmp_path / "file").put(f"{NAME}.webp", BytesIO(b"x"))
    assert [*Folder(tmp_path / "missing").names()] == []
