"""Pictures in a bucket: served as from a folder; when it fails, 503, no row without files, and no file for ever."""

import socket
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx2
import pytest
from PIL import Image
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.errors import MediaUnavailable
from app.media.bucket import CHUNK_BYTES
from app.media.storage import StorageError, get_storage
from app.routers.media import MAX_READERS
from app.services import media
from tests import pictures
from tests.buckets import BucketServer, Fault
from tests.figures import Figure
from tests.fixtures import Person, Server

MakeMedia = Callable[..., dict[str, Any]]
StartServer = Callable[..., Server]
# A timeout of a request, and what a busy machine adds.
BOUND_SECONDS = 15


@pytest.fixture
def stored(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The bucket, which this process uses."""
    bucket.use(monkeypatch)
    return bucket


def rows(connection: Connection) -> tuple[int, int]:
    """The number of pictures, and of removals."""
    found = connection.execute(text("SELECT (SELECT count(*) FROM media), (SELECT count(*) FROM media_removals)"))
    return tuple(found.one())


def key(url: str) -> str:
    name = url.removeprefix("/media/files/")
    return f"{name[:2]}/{name}"


def noise(side: int = 1000) -> bytes:
    """A picture that takes several chunks."""
    return pictures.encoded(Image.effect_noise((side, side), 100), "PNG", compress_level=1)


def test_a_picture_is_stored_served_exported_and_deleted(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia, stored: BucketServer
) -> None:
    made = make_media(person, noise(), alt="noise")

    assert stored.files() == {key(made["url"]), key(made["preview_url"])}
    whole = client.get(made["url"])
    etag = whole.headers["ETag"]
    part = client.get(made["url"], headers={"Range": f"bytes={CHUNK_BYTES - 5}-{CHUNK_BYTES + 4}"})
    unchanged = client.get(made["url"], headers={"If-None-Match": etag})
    assert (whole.status_code, whole.headers["Content-Type"]) == (200, "image/webp")
    assert len(whole.content) == int(whole.headers["Content-Length"]) > CHUNK_BYTES
    assert made["bytes"] == len(whole.content) + len(client.get(made["preview_url"]).content)
    assert (part.status_code, part.content) == (206, whole.content[CHUNK_BYTES - 5 : CHUNK_BYTES + 5])
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for response in (whole, part, unchanged):
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
    exported = zipfile.ZipFile(BytesIO(client.get("/users/me/export", headers=person.headers).content))
    (name,) = [name for name in exported.namelist() if name.startswith("pictures/")]
    assert exported.read(name) == whole.content

    assert client.delete(f"/media/{made['id']}", headers=person.headers).status_code == 204
    assert media.remove_files() == 1
    assert (stored.files(), rows(connection)) == (set(), (0, 0))
    assert client.get(made["url"]).status_code == 404


FAULTS: dict[str, tuple[Fault, int]] = {
    "refuses": (403, 0),
    "has no such bucket": (404, 0),
    "fails": (500, 0),
    "fails at the preview": (500, 1),
    "hangs": ("hang", 0),
    "hangs at the preview": ("hang", 1),
}


def test_a_bucket_that_fails_is_503_in_time_and_leaves_only_files_that_are_removed(
    start_server: StartServer, connection: Connection, make_person: Callable[..., Person], bucket: BucketServer,
    monkeypatch: pytest.MonkeyPatch, figure: Figure,
) -> None:  # fmt: skip
    server = start_server(WORKERS="1", **bucket.settings)
    for name, (fault, after) in FAULTS.items():
        bucket.fail("PUT", fault, after=after)
        person = make_person()
        begun = time.monotonic()
        response = httpx2.post(
            f"{server.url}/media", files={"file": ("a.png", pictures.png())}, headers=person.headers, timeout=60
        )
        seconds = time.monotonic() - begun
        assert (response.status_code, response.json()["code"]) == (503, "media_unavailable"), name
        assert seconds < BOUND_SECONDS, name
        figure(f"an upload to a bucket that {name}: 503 after {seconds:.1f} s")
    bucket.work()

    assert rows(connection) == (0, len(FAULTS))
    assert len(bucket.files()) == 2  # The pictures of the previews that failed.
    log = server.log.read_text()
    assert log.count("picture not stored") == len(FAULTS)
    assert "Traceback" not in log
    assert "canary-secret" not in log
    bucket.use(monkeypatch)
    connection.execute(text("UPDATE media_removals SET due_at = now()"))
    assert media.remove_files() == len(FAULTS)
    assert (bucket.files(), rows(connection)) == (set(), (0, 0))


def test_a_bucket_that_nothing_listens_for_is_503(
    start_server: StartServer, connection: Connection, person: Person, bucket: BucketServer
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        server = start_server(WORKERS="1", **bucket.settings | {"MEDIA_S3_ENDPOINT": nowhere})
        files = {"file": ("a.png", pictures.png())}
        uploaded = httpx2.post(f"{server.url}/media", files=files, headers=person.headers, timeout=60)
        assert uploaded.status_code == 503
        assert httpx2.get(f"{server.url}/media/files/{'0' * 32}.webp", timeout=60).status_code == 503
    assert rows(connection) == (0, 1)


def test_files_that_the_bucket_stored_after_the_timeout_are_removed(
    connection: Connection, database: Any, stored: BucketServer
) -> None:
    assert database
    stored.fail("PUT", "late")
    picture = BytesIO(b"x")
    with pytest.raises(MediaUnavailable):
        media.store(_Picture(picture))  # type: ignore[arg-type]
    assert (stored.files(), rows(connection)) == (set(), (0, 1))
    assert media.remove_files() == 0, "not due yet, because the bucket may still store them"

    stored.freed.set()
    deadline = time.monotonic() + 10
    while not stored.files() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(stored.files()) == 1
    stored.work()
    connection.execute(text("UPDATE media_removals SET due_at = now()"))
    assert media.remove_files() == 1
    assert (stored.files(), rows(connection)) == (set(), (0, 0))


class _Picture:
    def __init__(self, content: BytesIO) -> None:
        self.file = self.preview = content


@pytest.mark.parametrize("fault", ["hang", 500])
def test_files_whose_deletion_fails_are_deleted_later_and_the_batch_ends_in_time(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia, stored: BucketServer,
    fault: Fault,
) -> None:  # fmt: skip
    for _ in range(3):
        client.delete(f"/media/{make_media(person)['id']}", headers=person.headers)
    stored.fail("DELETE", fault, after=2)

    begun = time.monotonic()
    assert media.remove_files() == 1
    assert time.monotonic() - begun < 9, "PostgreSQL ends a transaction that is idle for 10 s"
    due = connection.scalars(text("SELECT due_at > now() FROM media_removals ORDER BY due_at")).all()
    assert due == [False, True], "the one that failed waits, the next does not"
    assert len(stored.files()) == 4

    stored.work()
    connection.execute(text("UPDATE media_removals SET due_at = now()"))
    assert media.remove_files() == 2
    assert (stored.files(), rows(connection)) == (set(), (0, 0))


def test_a_bucket_that_fails_while_a_picture_is_read_is_503_or_ends_the_connection(
    start_server: StartServer, person: Person, bucket: BucketServer
) -> None:
    server = start_server(WORKERS="1", **bucket.settings)
    made = httpx2.post(
        f"{server.url}/media", files={"file": ("a.png", noise())}, headers=person.headers, timeout=60
    ).json()
    url = server.url + made["url"]
    assert httpx2.get(url).status_code == 200

    for method, fault in (
        ("HEAD", 500),
        ("HEAD", 403),
        ("HEAD", "hang"),
        ("GET", 500),
        ("GET", "cut"),
        ("GET", "hang"),
    ):
        bucket.fail(method, fault)  # type: ignore[arg-type]
        begun = time.monotonic()
        response = httpx2.get(url, timeout=60)
        assert (response.status_code, response.json()["code"]) == (503, "media_unavailable"), (method, fault)
        assert "immutable" not in response.headers["Cache-Control"]
        assert time.monotonic() - begun < BOUND_SECONDS
    for fault in (500, 404, "cut", "hang"):
        bucket.fail("GET", fault, after=1)  # type: ignore[arg-type]
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(url, timeout=60)
    bucket.work()
    assert httpx2.get(url).status_code == 200
    log = server.log.read_text()
    assert "Traceback" not in log
    assert log.count("picture served in part") == 4


def test_a_bucket_that_hangs_leaves_threads_to_other_requests(
    start_server: StartServer, person: Person, bucket: BucketServer, figure: Figure
) -> None:
    server = start_server(WORKERS="1", RATE_LIMITS_ENABLED="false", **bucket.settings)
    bucket.fail("HEAD", "hang")
    names = [f"{number:032x}.webp" for number in range(60)]

    with ThreadPoolExecutor(len(names)) as pool:
        begun = time.monotonic()
        reads = [pool.submit(httpx2.get, f"{server.url}/media/files/{name}", timeout=60) for name in names]
        time.sleep(1)
        other = time.monotonic()
        assert httpx2.get(f"{server.url}/sessions", headers=person.headers, timeout=60).status_code == 200
        assert httpx2.get(f"{server.url}/media", headers=person.headers, timeout=60).status_code == 200
        seconds = time.monotonic() - other
        statuses = {read.result().status_code for read in reads}

    assert statuses == {503}
    assert seconds < 3, "without a limit they wait for threads until the bucket's timeout"
    assert time.monotonic() - begun < BOUND_SECONDS
    assert len([method for method, _ in bucket.asked if method == "HEAD"]) <= 2 * MAX_READERS
    figure(f"while {len(names)} reads wait for a bucket that hangs, two other requests took {seconds * 1000:.0f} ms")


def test_uploads_to_a_bucket_that_hangs_do_not_wait_for_each_other(
    start_server: StartServer, connection: Connection, make_person: Callable[..., Person], bucket: BucketServer,
    figure: Figure,
) -> None:  # fmt: skip
    server = start_server(WORKERS="1", RATE_LIMITS_ENABLED="false", DATABASE_POOL_SIZE="2", **bucket.settings)
    bucket.fail("PUT", "hang")
    people = [make_person() for _ in range(16)]

    def upload(person: Person) -> int:
        files = {"file": ("a.png", pictures.png())}
        return httpx2.post(f"{server.url}/media", files=files, headers=person.headers, timeout=60).status_code

    begun = time.monotonic()
    with ThreadPoolExecutor(len(people)) as pool:
        statuses = {*pool.map(upload, people)}
    seconds = time.monotonic() - begun

    assert statuses == {503}
    assert seconds < 28, "two at a time, 5 s each, would take 40 s"
    assert rows(connection)[0] == 0
    figure(f"{len(people)} uploads to a bucket that hangs, with two connections: 503 after {seconds:.1f} s at most")


def test_errors_are_one_line_without_the_secret(stored: BucketServer) -> None:
    stored.fail("PUT", 403)
    with pytest.raises(StorageError) as caught:
        get_storage().put(f"{'0' * 32}.webp", BytesIO(b"x"))
    assert "403" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert get_settings().media_s3_secret_access_key is not None
    assert "canary-secret" not in f"{caught.value!r} {get_settings()!r}"
