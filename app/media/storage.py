"""Storage of the files of pictures: a folder, or a bucket that speaks S3 (`bucket.py`).

Files never change. Their names are `<name>.webp` and `<name>-400.webp`, with 128 random bits.
"""

import os
import re
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

from app.config import get_settings

SUFFIXES = (".webp", "-400.webp")
FILE_NAME = re.compile(r"[0-9a-f]{32}(?:-400)?\.webp")
FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
CHUNK_BYTES = 65_536


class StorageError(Exception):
    """The storage does not work: the folder cannot be written, or the bucket does not answer. One line says why."""


class Storage(Protocol):
    """Files by name. All methods raise `StorageError`, and block."""

    def put(self, file_name: str, content: BinaryIO) -> None:
        """Store the content, from its current position to its end. The file appears when it is complete."""

    def size(self, file_name: str) -> int | None:
        """Return the size in bytes, or None if there is no such file."""

    def read(self, file_name: str, first: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the content in chunks, from `first` on, which is below the size. Nothing if there is no such file."""

    def delete(self, file_name: str) -> None:
        """Delete the file if it is there, also what an interrupted `put` left."""

    def names(self, after: str = "") -> Iterator[str]:
        """Yield the names of all files in order, also of incomplete ones. Begin behind the name `after`."""


def files_of(name: str) -> list[str]:
    """Return the names of the files of a picture: the picture and its preview."""
    return [name + suffix for suffix in SUFFIXES]


def path_of(file_name: str) -> str:
    """Return the path of the file in a folder or a bucket: its first two characters, `/`, and its name."""
    if not FILE_NAME.fullmatch(file_name):
        raise ValueError("not a name of a stored file")
    return f"{file_name[:2]}/{file_name}"


class Folder:
    """Storage in a folder: a file is in the subfolder that its first two characters name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, file_name: str) -> Path:
        return self.root / path_of(file_name)

    def put(self, file_name: str, content: BinaryIO) -> None:
        path = self._path(file_name)
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK_BYTES)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._sync(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write below {self.root}: {error.strerror}") from None

    def _sync(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def size(self, file_name: str) -> int | None:
        try:
            return self._path(file_name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read below {self.root}: {error.strerror}") from None

    def read(self, file_name: str, first: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            with self._path(file_name).open("rb") as file:
                file.seek(first)
                left = length
                while chunk := file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
                    yield chunk
                    if left is not None:
                        left -= len(chunk)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot read below {self.root}: {error.strerror}") from None

    def delete(self, file_name: str) -> None:
        path = self._path(file_name)
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".part").unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete below {self.root}: {error.strerror}") from None

    def names(self, after: str = "") -> Iterator[str]:
        try:
            for folder in sorted(each for each in self.root.iterdir() if FOLDER_NAME.fullmatch(each.name)):
                if folder.name >= after[:2]:
                    found = (file.with_suffix(".webp").name for file in folder.iterdir())
                    yield from sorted(name for name in found if name > after and FILE_NAME.fullmatch(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot read below {self.root}: {error.strerror}") from None


@lru_cache(maxsize=1)
def _folder(root: Path) -> Storage:
    return Folder(root)


@lru_cache(maxsize=1)
def _bucket(name: str, endpoint: str | None, region: str, credentials: tuple[str, str] | None) -> Storage:
    from app.media.bucket import Bucket  # noqa: PLC0415 - needs obstore, which only those with a bucket install.

    return Bucket(name, endpoint, region, credentials)


def get_storage() -> Storage:
    """Return the storage that the settings name."""
    settings = get_settings()
    if settings.media_s3_bucket is None:
        return _folder(settings.media_folder)
    return _bucket(
        settings.media_s3_bucket, settings.media_s3_endpoint, settings.media_s3_region, settings.media_s3_credentials
    )
