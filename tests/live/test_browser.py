"""Live streams in a real browser: `EventSource`, `fetch` and `WebSocket`, from this origin's pages and from others."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import Page, open_page
from tests.fixtures import PASSWORD, Person, Server, free_port
from tests.live.test_streams import MakePerson, MakePost, send

pytestmark = pytest.mark.needs("chromium")

# Collects the messages of each kind of client in `got`.
CLIENTS = """
window.got = {events: [], fetched: [], socket: [], closed: []};
window.listenTo = {
    events: (address, options) => {
        const source = window.source = new EventSource(address, options);
        source.onmessage = (event) => got.events.push({...JSON.parse(event.data), id: event.lastEventId});
        source.onerror = () => got.closed.push('events');
    },
    fetched: async (address, headers) => {
        const response = await fetch(address, {headers});
        let rest = '';
        for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
            const lines = (rest + text).split('\\n');
            rest = lines.pop();
            for (const line of lines) if (line.startsWith('data: ')) got.fetched.push(JSON.parse(line.slice(6)));
        }
        got.closed.push('fetched');
    },
    socket: (address) => {
        const socket = window.socket = new WebSocket(address.replace('http', 'ws'));
        socket.onmessage = (event) => got.socket.push(JSON.parse(event.data));
        socket.onclose = (event) => got.closed.push(`socket ${event.code}`);
    },
};
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """A page of another origin, on another port: the browser sends it this host's cookies all the same."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    with ThreadingHTTPServer(("127.0.0.1", free_port()), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def ticket(page: Page, url: str, person: Person) -> str:
    options = json.dumps({"method": "POST", "headers": person.headers})
    got: str = page.evaluate(f"fetch('{url}/live/tickets', {options}).then(a => a.json()).then(b => b.ticket)")
    return got


def wait_for(page: Page, kind: str, condition: str) -> None:
    page.wait_for(f"got.{kind}.some(m => {condition})")


def test_a_page_of_another_origin_listens_with_tickets(
    url: str, other_url: str, elsewhere: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    post_id, author = make_post(person), make_person()
    address = f"{url}/live?posts={post_id}&topics=me"
    with open_page(elsewhere) as page:
        page.evaluate(CLIENTS)
        page.evaluate(f"listenTo.events('{address}&ticket={ticket(page, url, person)}')")
        page.evaluate(f"void listenTo.fetched('{address}', {json.dumps(person.headers)})")
        page.evaluate(f"listenTo.socket('{address}&ticket={ticket(page, url, person)}')")
        for kind in ("events", "fetched", "socket"):
            wait_for(page, kind, "m.type === 'state' && m.posts[0].post.votes === 0")
        send("PUT", f"{other_url}/posts/{post_id}/vote", author)
        send("POST", f"{other_url}/posts/{post_id}/comments", author, json={"content": "Hello"})
        for kind in ("events", "fetched", "socket"):
            wait_for(page, kind, "m.type === 'post' && m.post.votes === 1")
            wait_for(page, kind, "m.type === 'comment' && m.comment.content === 'Hello'")
            wait_for(page, kind, "m.type === 'notification'")
        page.evaluate("socket.send(JSON.stringify({unwatch: ['me'], watch: ['new']}))")
        page.wait_for("got.socket.filter(m => m.type === 'state').length === 2")

        # An EventSource with a new ticket goes on after the last id.
        last_id = page.evaluate("source.close(), got.events.at(-1).id")
        send("POST", f"{other_url}/posts/{post_id}/comments", author, json={"content": "Meanwhile"})
        page.evaluate("got.events.length = 0")
        page.evaluate(f"listenTo.events('{address}&ticket={ticket(page, url, person)}&last_event_id={last_id}')")
        wait_for(page, "events", "m.type === 'comment' && m.comment.content === 'Meanwhile'")
        assert page.evaluate("got.events.filter(m => m.type === 'comment').length") == 1

        send("POST", f"{other_url}/logout", person)
        for kind in ("events", "fetched", "socket"):
            wait_for(page, kind, "m.type === 'end' && m.reason === 'session_ended'")
        page.wait_for("got.closed.includes('socket 1008')")


def test_the_cookie_works_for_pages_of_this_origin_only(
    start_server: Callable[..., Server], elsewhere: str, person: Person, make_post: MakePost
) -> None:
    server, post_id = start_server(), make_post(person)
    form = f"new URLSearchParams({json.dumps({'username': person.email, 'password': PASSWORD})})"
    with open_page(f"{server.url}/docs") as page:
        assert (
            page.evaluate(f"fetch('/login?cookie=true', {{method: 'POST', body: {form}}}).then(a => a.status)") == 200
        )
        page.evaluate(CLIENTS)
        address = f"{server.url}/live?posts={post_id}"
        for kind in ("events", "fetched", "socket"):
            page.evaluate(f"void listenTo.{kind}('{address}')")
            wait_for(page, kind, "m.type === 'state' && m.posts[0].post !== null")

        page.evaluate(f"void (location.href = '{elsewhere}')")
        page.wait_for("document.title === 'elsewhere'")
        page.evaluate(CLIENTS)
        page.evaluate(f"listenTo.events('{address}', {{withCredentials: true}})")
        page.evaluate(f"listenTo.socket('{address}')")
        page.wait_for("got.closed.includes('socket 1006') && got.closed.includes('events')")
        assert page.evaluate("got.events.length + got.socket.length") == 0
        assert "403" in " ".join(page.complaints)
