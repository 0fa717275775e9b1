"""A site with the demo of `app seed --demo`, for tests and pictures of the web client."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from tests.conftest import ROOT, administration, test_server
from tests.fixtures import free_port

START_SECONDS = 60


@contextmanager
def demo_site(**settings: str) -> Iterator[str]:
    """The address of a server with the demo and these settings, on a database and folders of its own."""
    name = f"demo_{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder, test_server() as host, administration(host) as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        url, port = host.set(database=name), free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "MEDIA_ROOT": f"{folder}/media",
            "SECRET_KEY": "of-no-use-after-the-site-is-gone",
            "MAIL_ENABLED": "false",
            "PORT": str(port),
            **settings,
        }
        try:
            for command in (("alembic", "upgrade", "head"), ("app", "seed", "--demo")):
                subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=True)
            server = subprocess.Popen([sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment)
            try:
                _wait(f"http://127.0.0.1:{port}")
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()
                server.wait(15)
        finally:
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
