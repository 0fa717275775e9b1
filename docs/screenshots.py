"""Make the pictures of the web client at the start of README.md: `make screenshots`.

It fills a new database with `app seed --demo`, serves it, and takes pictures with an installed Chromium.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from sqlalchemy import text

from app.dev.seed import PASSWORD
from tests.browser import Page, open_page
from tests.conftest import administration, test_server
from tests.fixtures import free_port

FOLDER = Path(__file__).resolve().parent / "pictures"
ROOT = FOLDER.parent.parent
MAX_BYTES = 200_000
START_SECONDS = 60


def main() -> None:
    """Take both pictures."""
    FOLDER.mkdir(exist_ok=True)
    with _site() as url:
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


@contextmanager
def _site() -> Iterator[str]:
    """A server with the demo, on a database and folders of its own."""
    name = f"screenshots_{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder, test_server() as host, administration(host) as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        url, port = host.set(database=name), free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "MEDIA_ROOT": f"{folder}/media",
            "SECRET_KEY": "of-no-use-after-the-pictures-are-taken",
            "MAIL_ENABLED": "false",
            "PORT": str(port),
        }
        subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)
        subprocess.run([sys.executable, "-m", "app", "seed", "--demo"], cwd=ROOT, env=environment, check=True)
        server = subprocess.Popen([sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment)
        try:
            _wait(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(15)
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310 - of this machine.
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server did not start")


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
