"""The web client with a slow network, a hidden tab, an ended stream, and a server that starts again."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection, text

from tests.browser import Page, open_page
from tests.fixtures import Person, Server
from tests.web.test_browser import as_other, fill, show, shows, sign_in, wait_for_stream

pytestmark = pytest.mark.needs("chromium")

# The page waits for half a minute before a hidden tab gives up its stream.
HURRY = "setTimeout = (wait => (run, time) => wait(run, Math.min(time, 100)))(setTimeout)"
COUNT_CLOSED = "EventSource.prototype.close = (close => function () { window.hasClosed = 1; close.call(this) })(\
EventSource.prototype.close)"
FORGET_PLACE = "EventSource = class extends EventSource { constructor(url) {\
 super(url.replace(/last_event_id=[^&]+/, 'last_event_id=lost')) } }"
HIDE = "Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})"
SHOW = "delete document.visibilityState"
TELL = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(PASSWORD_HASH_ROUNDS="4")


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with open_page(f"{server.url}/web/") as opened:
        yield opened


@pytest.fixture
def post_id(page: Page, server: Server, person: Person, make_post: Callable[..., int]) -> int:
    """A post that the page shows, with its stream."""
    post_id = make_post(person, title="Moths")
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    page.wait_for("document.querySelector('.comments-empty')")
    wait_for_stream(page, f"posts={post_id}&")
    return post_id


def comment(server: Server, writer: Person, post_id: int, content: str = "A hawk moth?") -> None:
    as_other(server, writer, "POST", f"/posts/{post_id}/comments", content=content).raise_for_status()


def test_a_hidden_tab_has_no_stream_and_misses_nothing(
    page: Page, server: Server, post_id: int, make_person: Callable[..., Person]
) -> None:
    page.evaluate(f"{COUNT_CLOSED}; {HURRY}; {HIDE}; {TELL}")
    page.wait_for("window.hasClosed")
    comment(server, make_person(), post_id)
    page.wait_for("new Promise(done => setTimeout(done, 100, true))")
    assert page.evaluate("document.querySelector('.news button')") is None

    page.evaluate(f"{SHOW}; {TELL}")
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new comment'")
    page.wait_for("document.querySelector('header .count')?.textContent === '1'")
    assert page.complaints == []


def test_after_a_gap_in_the_stream_the_page_offers_to_load_again(
    page: Page, server: Server, post_id: int, make_person: Callable[..., Person]
) -> None:
    page.evaluate(FORGET_PLACE)
    page.go_offline(True)
    page.wait_for(shows("You are offline"))
    comment(server, make_person(), post_id)
    page.go_offline(False)
    page.wait_for("document.querySelector('.news button')?.textContent === 'New comments'")

    page.click(".news button")
    page.wait_for("document.querySelector('.comment .prose')?.textContent === 'A hawk moth?'")
    assert page.evaluate("document.querySelector('.news button')") is None


def test_a_session_that_ended_elsewhere_is_said_and_typed_text_stays(page: Page, post_id: int) -> None:
    fill(page, "Write a comment", "Half a comment")
    page.evaluate("fetch('/logout', {method: 'POST'})")
    page.wait_for(shows("You have been signed out"))
    page.wait_for("document.querySelector('header a[href$=\"/sign-in\"]')")
    assert page.evaluate(f"localStorage.getItem('text:comment-on-{post_id}')") == "Half a comment"


def test_on_a_slow_network_the_page_says_that_it_loads_and_sends_once(
    page: Page, server: Server, person: Person, connection: Connection
) -> None:
    sign_in(page, server, person)
    page.hold("*/posts*")
    page.click("nav a", "New")
    page.wait_for("document.querySelector('main .loading[role=status]')")
    page.release()
    page.wait_for(shows("Nothing here yet"))

    page.click(".empty a", "write a post")
    fill(page, "Title", "Moths")
    fill(page, "Text", "Grey ones.")
    page.hold("*/posts*")
    page.click("main button", "Publish")
    page.wait_for("document.querySelector('main button[type=submit]').ariaDisabled === 'true'")
    for _ in range(3):
        page.click("main button[type=submit]")
        page.click("main button", "Save as draft")
    page.release()
    page.wait_for("document.querySelector('.post h1')?.textContent === 'Moths'")
    assert connection.execute(text("SELECT title, published FROM posts")).all() == [("Moths", True)]


@pytest.mark.slow
def test_after_a_restart_of_the_server_the_page_goes_on_by_itself(
    page: Page,
    server: Server,
    post_id: int,
    start_server: Callable[..., Server],
    make_person: Callable[..., Person],
    connection: Connection,
) -> None:
    fill(page, "Write a comment", "Half a comment")
    server.process.terminate()
    server.process.wait(15)
    page.click(".comment-form button", "Comment")
    page.wait_for("document.querySelector('.comment-form [role=alert]')?.textContent.includes('cannot be reached')")
    page.click(".brand")
    page.wait_for(shows("No connection"))

    again = start_server(PASSWORD_HASH_ROUNDS="4", PORT=str(urlsplit(server.url).port))
    page.wait_for("document.querySelector('.post-row h2')?.textContent === 'Moths'")
    page.requests.clear()
    page.click(".post-row h2 a")
    page.wait_for("document.querySelector('.comment-form textarea')?.value === 'Half a comment'")
    page.click(".comment-form button", "Comment")
    page.wait_for("document.querySelector('.comment .prose')?.textContent === 'Half a comment'")
    wait_for_stream(page, f"posts={post_id}&")
    comment(again, make_person(), post_id)
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new comment'")
    assert connection.scalar(text("SELECT count(*) FROM comments")) == 2
