"""Make the pictures of the web client at the start of README.md: `make screenshots`.

It fills a new database with `app seed --demo`, serves it, and takes pictures with an installed Chromium.
"""

import io
import time
from pathlib import Path

from PIL import Image

from app.dev.seed import PASSWORD
from tests.browser import Page, open_page
from tests.demo import demo_site

FOLDER = Path(__file__).resolve().parent / "pictures"
MAX_BYTES = 200_000


def main() -> None:
    """Take both pictures."""
    FOLDER.mkdir(exist_ok=True)
    with demo_site() as url:
        with open_page(f"{url}/web/") as page:
            _sign_in(page, url, "sam")
            page.hide_scrollbars()
            page.resize(1280, 860)
            page.prefer_colours("light")
            page.navigate(f"{url}/web/")
            _save(page, "desktop.png")
        with open_page(f"{url}/web/") as page:
            _sign_in(page, url, "mira")
            page.hide_scrollbars()
            page.resize(390, 844)
            page.prefer_colours("dark")
            page.navigate(f"{url}/web/")
            page.click(".post-row h2 a", "Saturn")
            page.wait_for("document.querySelector('.comment')")
            page.evaluate("window.scrollTo(0, 360)")
            _save(page, "phone.png")


def _sign_in(page: Page, url: str, username: str) -> None:
    form = f"new URLSearchParams({{username: '{username}@example.com', password: '{PASSWORD}'}})"
    page.evaluate(f"fetch('{url}/login?cookie=true', {{method: 'POST', body: {form}}}).then(r => r.ok)")
    page.evaluate("localStorage.setItem('signed-in', 'yes')")


def _save(page: Page, name: str) -> None:
    """Take the picture when everything is shown, in few colours."""
    page.wait_for("document.querySelector('.post-row, .post') && !document.querySelector('.loading')")
    page.wait_for("[...document.images].every(image => image.complete || image.loading === 'lazy')")
    time.sleep(2)  # Animations, and pictures that come into view.
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / name
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")


if __name__ == "__main__":
    main()
