"""Hostile uploads: each is refused or written anew, in bounded memory, and leaves no file without a picture."""

import io
import os
import socket
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageCms
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from tests import pictures
from tests.fixtures import Person, Server
from tests.pictures import BLUE, GREEN, RED, WHITE, encoded, quarters

MakeMedia = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")


def opened(client: TestClient, made: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(client.get(made["url"]).content))


def bomb() -> bytes:
    """A PNG of 20,000 × 20,000 pixels in 1 KB, whose data ends early."""
    data = bytearray(pictures.png())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil.js", "alert(1)")
    return file.getvalue()


REFUSED: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 415),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415),
    "HTML": (b"<html><script>alert(1)</script></html>", 415),
    "ZIP": (zipped(), 415),
    "BMP": (encoded(quarters(), "BMP"), 415),
    "TIFF": (encoded(quarters(), "TIFF"), 415),
    "truncated PNG": (pictures.png(400, 400)[:-200], 422),
    "truncated JPEG": (encoded(quarters(400, 400), "JPEG")[:1_500], 422),
    "signature only": (b"\x89PNG\r\n\x1a\n", 415),
    "bomb": (bomb(), 422),
    "100,000 × 1": (encoded(Image.new("L", (100_000, 1)), "PNG"), 422),
    "GIF and script": (b"GIF89a=/*" + b"\0" * 20 + b"*/;alert(1)", 415),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_picture_is_refused_and_leaves_nothing(
    client: TestClient, connection: Connection, person: Person, name: str
) -> None:
    content, status = REFUSED[name]

    response = client.post("/media", files={"file": ("a.png", content, "image/png")}, headers=person.headers)

    assert response.status_code == status, response.text
    assert connection.scalar(text("SELECT count(*) FROM media")) == 0
    assert connection.scalar(text("SELECT count(*) FROM media_removals")) == 0
    assert pictures.files() == set()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_and_without_metadata(
    client: TestClient, person: Person, make_media: MakeMedia, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    upright = quarters(80, 40)
    # The transposition that the orientation undoes.
    undone = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undone[orientation]) if orientation in undone else upright

    made = make_media(person, encoded(stored, "JPEG", exif=exif, quality=95))
    shown = opened(client, made)

    assert (made["width"], made["height"], shown.size) == (80, 40, (80, 40))
    assert pictures.corners(shown) == [RED, GREEN, BLUE, WHITE]
    assert dict(shown.getexif()) == {}
    assert not {"exif", "icc_profile", "xmp"} & {*shown.info}
    assert b"camera" not in client.get(made["url"]).content


def test_what_follows_a_picture_in_its_file_is_gone(client: TestClient, person: Person, make_media: MakeMedia) -> None:
    for content in (encoded(quarters(), "JPEG") + zipped(), pictures.png() + b"<script>alert(1)</script>"):
        served = client.get(make_media(person, content)["url"]).content
        assert b"alert" not in served
        assert b"evil" not in served


def test_every_kind_of_pixels_is_shown_as_it_looks(client: TestClient, person: Person, make_media: MakeMedia) -> None:
    picture = quarters(80, 40)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (
        encoded(picture, "WEBP"), encoded(picture, "GIF"), encoded(picture.convert("P"), "PNG"),
        encoded(picture.convert("CMYK"), "JPEG"), encoded(picture, "JPEG", icc_profile=profile),
        encoded(picture, "PNG", icc_profile=b"damaged"), encoded(picture.convert("RGBA"), "PNG"),
    ):  # fmt: skip
        assert pictures.corners(opened(client, make_media(person, content))) == [RED, GREEN, BLUE, WHITE]
    deep = Image.frombytes("I;16", (80, 40), (b"\0\0" * 40 + b"\0\xf0" * 40) * 40)
    shown = opened(client, make_media(person, encoded(deep, "PNG")))
    assert pictures.corners(shown) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]
    clear = Image.new("RGBA", (80, 40), (0, 0, 0, 0))
    assert opened(client, make_media(person, encoded(clear, "PNG"))).convert("RGBA").getpixel((9, 9)) == (0, 0, 0, 0)


def test_of_ten_thousand_frames_the_first_is_kept(client: TestClient, person: Person, make_media: MakeMedia) -> None:
    frames = [Image.new("P", (8, 8), number % 2) for number in range(10_000)]
    frames[0] = quarters(8, 8).convert("P")
    made = make_media(person, encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    assert getattr(opened(client, made), "n_frames", 1) == 1


def test_uploads_of_exactly_the_limit_pass_and_of_one_byte_more_do_not(
    client: TestClient, person: Person, make_media: MakeMedia
) -> None:
    most = get_settings().media_max_bytes
    make_media(person, pictures.png().ljust(most, b"\0"))
    for more in (1, 100_000):
        response = client.post(
            "/media", files={"file": ("a.png", pictures.png().ljust(most + more, b"\0"))}, headers=person.headers
        )
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert len(pictures.files()) == 2


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def worker_of(server: Server) -> int:
    """The process that answers requests: the only child of the supervisor, or the server itself."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return int(children[0]) if children else server.process.pid


@pytest.mark.slow
def test_fifty_uploads_at_once_take_bounded_memory_and_all_succeed(
    start_server: Callable[..., Server], make_person: Callable[..., Person], tmp_path: Path
) -> None:
    server = start_server(MEDIA_ROOT=str(tmp_path / "served"), WORKERS="1")
    people = [make_person() for _ in range(50)]
    content = pictures.png().ljust(5_000_000, b"\0")

    def upload(person: Person) -> int:
        files = {"file": ("a.png", content)}
        return httpx2.post(f"{server.url}/media", files=files, headers=person.headers, timeout=60).status_code

    assert upload(people[0]) == 201  # What the first upload imports and connects does not count.
    worker = worker_of(server)
    before = highest = resident_bytes(worker)
    with ThreadPoolExecutor(50) as pool:
        uploads = [pool.submit(upload, person) for person in people]
        while not all(each.done() for each in uploads):
            highest = max(highest, resident_bytes(worker))
            time.sleep(0.01)

    assert [each.result() for each in uploads] == [201] * 50
    print(f"resident: {before / 1e6:.1f} MB, at most {highest / 1e6:.1f} MB while 50 uploads of 5 MB arrive")  # noqa: T201
    assert highest - before < 30_000_000


def test_an_upload_that_is_cut_off_leaves_nothing(
    start_server: Callable[..., Server], connection: Connection, person: Person, tmp_path: Path
) -> None:
    server = start_server(MEDIA_ROOT=str(tmp_path / "served"), WORKERS="1")
    port = int(server.url.rpartition(":")[2])
    head = (
        f"POST /media HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {person.headers['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head.encode() + pictures.png() + b"\0" * 500_000)
        time.sleep(0.5)
    time.sleep(0.5)

    assert httpx2.get(f"{server.url}/readyz").status_code == 200
    assert connection.scalar(text("SELECT count(*) FROM media_removals")) == 0
    assert [*(tmp_path / "served").rglob("*")] == []
    open_files = {str(each.readlink()) for each in Path(f"/proc/{worker_of(server)}/fd").iterdir() if each.is_symlink()}
    assert not [each for each in open_files if "deleted" in each and str(tmp_path) in each]
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
