"""What the pages of the web client show beside text: placeholders of pictures, and links to feeds."""

import base64
import json
from collections.abc import Callable
from io import BytesIO

import httpx2
import pytest
from PIL import Image

from app.media.decoder import blurhash
from tests.browser import open_page
from tests.fixtures import Person, Server
from tests.pictures import BLUE, RED, corners, png
from tests.web.test_browser import DESKTOP, PHONE, show, sign_in

pytestmark = pytest.mark.needs("chromium")


def post_with_picture(server: Server, person: Person, width: int, height: int) -> int:
    with httpx2.Client(base_url=server.url, headers=person.headers) as client:
        media = client.post("/media", files={"file": ("picture.png", png(width, height))}).raise_for_status().json()
        body = {"title": "A flag", "content": "Below.", "media_ids": [media["id"]]}
        return int(client.post("/posts", json=body).raise_for_status().json()["id"])


def test_a_placeholder_has_the_colors_of_its_picture(start_server: Callable[..., Server]) -> None:
    across = Image.new("RGB", (40, 20), RED)
    across.paste(BLUE, (20, 0, 40, 20))
    down = across.transpose(Image.Transpose.ROTATE_270)
    with open_page(f"{start_server().url}/web/") as page:
        page.evaluate("import(document.querySelector('link[href$=\"/blurhash.js\"]').href).then(m => { window.b = m })")
        addresses = page.evaluate(f"{json.dumps([blurhash(across), blurhash(down)])}.map(b.placeholder)")

        assert page.evaluate("['', 'L', 'LEHV6nWB2yk8'].map(b.placeholder)") == ["", "", ""], "damaged hashes"
    for address, expected in zip(addresses, (across, down), strict=True):
        kind, _, content = address.partition(",")
        assert kind == "data:image/bmp;base64"
        with Image.open(BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (16, 12)
            assert corners(picture) == corners(expected)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize(("width", "height"), [(1200, 600), (300, 900)])
def test_nothing_moves_when_a_picture_has_loaded(
    start_server: Callable[..., Server], person: Person, size: tuple[int, int], width: int, height: int
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4")
    post_id = post_with_picture(server, person, width, height)
    image = "document.querySelector('.pictures img')"
    box = f"(b => [b.width, b.height])({image}.getBoundingClientRect())"
    with open_page(f"{server.url}/web/") as page:
        page.resize(*size)
        page.hold("*/media/*")
        sign_in(page, server, person)
        show(page, server, f"/posts/{post_id}")
        page.wait_for(f"{image}?.style.backgroundImage.includes('data:image/bmp') && !{image}.complete")
        reserved = page.evaluate(box)
        page.release()
        page.wait_for(f"{image}.naturalWidth > 0 && {image}.style.backgroundImage === ''")

        assert page.evaluate(box) == reserved
        assert reserved[0] / reserved[1] == pytest.approx(width / height, rel=0.02)
        assert reserved[1] <= 0.76 * size[1]
        assert page.complaints == []


def test_tags_and_profiles_of_a_public_site_have_feeds(
    start_server: Callable[..., Server], make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    server, person = start_server(PUBLIC_READS="true"), make_person(username="ada")
    make_post(person, title="A moth", tags=["moths"])
    links = "[...document.querySelectorAll('link[rel=alternate]')]"
    feeds = {
        "/": "/posts.atom",
        "/tags/moths": "/tags/moths/posts.atom",
        "/users/ada": f"/users/{person.id}/posts.atom",
    }
    with open_page(f"{server.url}/web/") as page:
        for path, feed in feeds.items():
            show(page, server, path)
            page.wait_for(f"{links}.length === 1 && document.querySelector('main a[href$=\".atom\"]')")
            assert page.evaluate(f"{links}[0].href") == page.evaluate("document.querySelector('main a[type]').href")
            assert page.evaluate(f"{links}[0].href") == f"{server.url}{feed}"
            assert "A moth" in httpx2.get(f"{server.url}{feed}").text
        page.click(".brand")
        page.wait_for(f"{links}.map(e => new URL(e.href).pathname).join() === '/posts.atom'")
        assert page.complaints == []
