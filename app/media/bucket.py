"""Storage of the files of pictures in a bucket that speaks S3, through obstore (requirements-s3.lock).

Files have the same paths as in a folder, so that a folder can be copied into a bucket, and back. Each request has a
timeout, and no request stays open between two chunks, so that slow readers hold no connections.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.media.storage import FILE_NAME, StorageError, path_of

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, S3Config  # These exist for type checkers only.

CONNECT_TIMEOUT = timedelta(seconds=2)
# Of one request with its content, which is at most a part. A request is not repeated after this time.
TIMEOUT = timedelta(seconds=5)
MAX_RETRIES = 2
BACKOFF: "BackoffConfig" = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2}
# The minimum of S3. Larger files are stored in parts, one after the other, so that a call holds one part in memory.
PART_BYTES = 5 << 20
CHUNK_BYTES = 1 << 18
LISTED = 1000
MAX_REASON = 500


class Bucket:
    """Storage in a bucket that has nothing else in it, or nothing that looks like these files."""

    def __init__(self, name: str, endpoint: str | None, region: str, credentials: tuple[str, str] | None) -> None:
        """Without credentials, obstore takes those of the environment, the container or the instance."""
        # Other storages than Amazon's do not all have the request that deletes several files.
        config: S3Config = {"region": region, "disable_bulk_delete": True}
        if endpoint is not None:
            config["endpoint"] = endpoint
        if credentials is not None:
            config["access_key_id"], config["secret_access_key"] = credentials
        self._store = S3Store(
            name,
            config=config,
            client_options={
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "timeout": TIMEOUT,
            },
            retry_config={"max_retries": MAX_RETRIES, "retry_timeout": TIMEOUT, "backoff": BACKOFF},
        )

    def put(self, file_name: str, content: BinaryIO) -> None:
        with _storage_errors():
            obstore.put(
                self._store,
                path_of(file_name),
                content,
                attributes={"Content-Type": "image/webp"},
                chunk_size=PART_BYTES,
                max_concurrency=1,
            )

    def size(self, file_name: str) -> int | None:
        with _storage_errors():
            try:
                return obstore.head(self._store, path_of(file_name))["size"]
            except FileNotFoundError:
                return None

    def read(self, file_name: str, first: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length is None:
            length = (self.size(file_name) or 0) - first
        while length > 0:
            with _storage_errors():
                try:
                    wanted = min(length, CHUNK_BYTES)
                    chunk = obstore.get_range(self._store, path_of(file_name), start=first, length=wanted)
                except FileNotFoundError:
                    return
            if not chunk:
                return
            yield bytes(chunk)
            first += len(chunk)
            length -= len(chunk)

    def delete(self, file_name: str) -> None:
        with _storage_errors():
            obstore.delete(self._store, path_of(file_name))

    def names(self, after: str = "") -> Iterator[str]:
        pages = obstore.list(self._store, offset=path_of(after) if after else None, chunk_size=LISTED)
        while True:
            with _storage_errors():
                page = next(pages, None)
            if page is None:
                return
            paths = (file["path"].rpartition("/") for file in page)
            yield from (name for folder, _, name in paths if folder == name[:2] and FILE_NAME.fullmatch(name))


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Raise `StorageError` for any error of the bucket. Its message is one line."""
    try:
        yield
    except (BaseError, OSError) as error:
        reason = str(error).partition("\n")[0][:MAX_REASON]
        raise StorageError(f"the bucket failed: {reason}") from None
