"""The examples work as they are, against a real server, and the page in a real browser."""

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.browser import open_page
from tests.conftest import ROOT
from tests.fixtures import PASSWORD, Person, Server, free_port

EXAMPLES = ROOT / "examples"


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def run_script(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, EXAMPLES / "post.py", *arguments],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_script_writes_one_post_with_an_api_key(server: Server, person: Person, connection: Connection) -> None:
    scopes = {"name": "script", "scopes": ["read", "write"]}
    key = httpx2.post(f"{server.url}/api-keys", json=scopes, headers=person.headers).json()["key"]

    done = run_script("Moths", "I found one", API=server.url, API_KEY=key)

    rows = connection.execute(text("SELECT id, owner_id, title, content FROM posts")).all()
    assert [row[1:] for row in rows] == [(person.id, "Moths", "I found one")]
    assert (done.returncode, done.stdout) == (0, f"{server.url}/posts/{rows[0].id}\n")


def test_script_says_in_one_line_why_it_was_refused(server: Server) -> None:
    refused = run_script("Moths", "I found one", API=server.url, API_KEY="spk_wrong")
    assert (refused.returncode, refused.stderr) == (1, "refused: 401 Could not validate credentials\n")

    used_wrongly = run_script("Moths")
    assert (used_wrongly.returncode, used_wrongly.stderr[:6]) == (1, "usage:")


@pytest.fixture
def page_server() -> Iterator[str]:
    """The folder of examples on a port of its own, as `python -m http.server` serves it."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(EXAMPLES))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


@pytest.mark.needs("chromium")
def test_page_signs_in_reads_all_posts_and_votes(
    server: Server,
    person: Person,
    make_post: Callable[..., int],
    connection: Connection,
    page_server: str,
) -> None:
    post_ids = [make_post(person, title=f"<b>post</b> {number}") for number in range(12)]
    with open_page(f"{page_server}/page.html?api={server.url}") as page:
        page.type("[name=username]", person.email)
        page.type("[name=password]", "a wrong one")
        page.click("button", "Sign in")
        page.wait_for("document.getElementById('problem').textContent === 'Invalid Credentials'")

        page.evaluate("document.querySelector('[name=password]').value = ''")
        page.type("[name=password]", PASSWORD)
        page.click("button", "Sign in")
        page.wait_for("document.querySelectorAll('article').length === 10")
        page.click("#more")
        page.wait_for("document.querySelectorAll('article').length === 12")
        assert page.evaluate("document.getElementById('more').hidden")
        titles = page.evaluate("[...document.querySelectorAll('h2')].map(title => title.textContent)")
        assert titles == [f"<b>post</b> {number}" for number in reversed(range(12))]

        def vote_and_wait(label: str, rows: list[tuple[int, int]]) -> None:
            page.click("article button")
            page.wait_for(f"document.querySelector('article button').textContent === {json.dumps(label)}")
            assert [tuple(row) for row in connection.execute(text("SELECT post_id, user_id FROM votes"))] == rows

        vote_and_wait("▲ 1", [(post_ids[-1], person.id)])
        vote_and_wait("△ 0", [])
        assert [complaint for complaint in page.complaints if "403" not in complaint] == []
