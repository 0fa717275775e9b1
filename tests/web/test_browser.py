"""The web client in a real browser, against a real server."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.browser import DEADLINE_SECONDS, Page, open_page
from tests.fixtures import PASSWORD, Person, Server
from tests.pictures import png

pytestmark = pytest.mark.needs("chromium")

PHONE, DESKTOP = (360, 740), (1280, 900)
# What would run, or become an element, if a text of a user ever were HTML.
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\"'&amp;{{1}}${1}"


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(PASSWORD_HASH_ROUNDS="4")


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with open_page(f"{server.url}/web/") as opened:
        yield opened
        assert opened.hosts == {urlsplit(server.url).netloc}


def sign_in(page: Page, server: Server, person: Person) -> None:
    """Sign in as the form does, without it."""
    form = json.dumps(f"username={person.email}&password={PASSWORD}".replace("+", "%2B").replace(" ", "+"))
    page.evaluate(f"fetch('/login?cookie=true', {{method: 'POST', body: new URLSearchParams({form})}})")
    page.evaluate("localStorage.setItem('signed-in', 'yes')")
    page.navigate(f"{server.url}/web/")
    page.wait_for("document.querySelector('.avatar-button')")


def show(page: Page, server: Server, path: str) -> None:
    """Load a page of the client, and wait until it shows something."""
    page.navigate(f"{server.url}/web{path}")
    page.wait_for("!document.querySelector('.loading, .boot') && document.querySelector('main h1, main h2')")


def shows(text: str) -> str:
    """JavaScript: whether the page shows the text."""
    return f"document.body.innerText.includes({json.dumps(text)})"


def fill(page: Page, label: str, value: str) -> None:
    """Type into the field with this label, as a reader finds it."""
    found = f"[...document.querySelectorAll('label')].find(e => e.textContent.trim() === {json.dumps(label)})"
    page.wait_for(found)
    field = page.evaluate(f"{found}.htmlFor")
    page.type(f"[id={json.dumps(field)}]", value)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_newcomer_signs_up_writes_votes_and_comments(
    page: Page, connection: Connection, tmp_path: Path, size: tuple[int, int]
) -> None:
    page.resize(*size)
    page.wait_for(shows("A quiet place"))
    page.click(".welcome a", "Create an account")
    fill(page, "E-mail address", "ada@example.com")
    fill(page, "Username", "ada")
    fill(page, "Password", "correct horse battery")
    page.click("main button", "Sign up")
    page.wait_for(shows("Nothing here yet"))

    page.click(".empty a", "write a post")
    fill(page, "Title", "Moths at night")
    fill(page, "Text", "I found one.\nIt was grey: https://example.com/moth.")
    page.type("[role=combobox]", "Moths")
    page.press("Enter")
    beach = tmp_path / "beach.png"
    beach.write_bytes(png())
    page.choose_files("input[type=file]", beach)
    page.wait_for("document.querySelector('.upload textarea')")
    page.type(".upload textarea", "A beach")
    page.click("main button", "Publish")
    page.wait_for("document.querySelector('.post h1')?.textContent === 'Moths at night'")
    page.wait_for("document.querySelector('.post .pictures img')?.naturalWidth > 0")
    assert page.evaluate("document.querySelector('.prose a').href") == "https://example.com/moth"
    assert page.evaluate("document.querySelector('.post .pictures img').alt") == "A beach"

    page.click(".post .vote")
    page.wait_for("document.querySelector('.post .vote').textContent.trim() === '1'")
    fill(page, "Write a comment", "A hawk moth?")
    page.click(".comment-form button", "Comment")
    page.wait_for("document.querySelector('.comment .prose')")
    page.click(".comment button", "Reply")
    fill(page, "Reply to ada", "Yes, @ada")
    page.click(".comment .comment-form button", "Reply")
    page.wait_for("document.querySelector('.replies .comment .prose a')?.textContent === '@ada'")

    page.click(".post button[aria-label='More about this post']")
    page.click(".menu-items a", "Edit")
    page.wait_for("document.querySelector('.write textarea')?.value.startsWith('I found one')")
    fill(page, "Title", "Moths at night, again")
    page.click("main button", "Save")
    page.wait_for("document.querySelector('.post h1')?.textContent.includes('again')")

    # What the page still asks for would be refused after the end of the session, and complained of.
    page.wait_for("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/mute')).length > 1")
    time.sleep(1)
    page.click(".avatar-button")
    page.click(".menu-items button", "Sign out")
    page.wait_for(shows("A quiet place"))

    statement = "SELECT title, tags, votes, comments FROM posts JOIN post_stats ON post_id = id"
    (row,) = connection.execute(text(statement))
    assert ("again" in row.title, row.tags, row.votes, row.comments) == (True, ["moths"], 1, 2)
    assert connection.scalar(text("SELECT alt FROM media")) == "A beach"
    assert connection.scalar(text("SELECT count(*) FROM sessions")) == 0
    assert page.complaints == []


def test_a_comment_that_is_written_before_the_others_have_arrived_stays(
    page: Page, server: Server, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person, title="Moths")
    httpx2.post(f"{server.url}/posts/{post_id}/comments", json={"content": "First."}, headers=person.headers)
    sign_in(page, server, person)
    is_list = "String(address).includes('/comments?')"
    page.evaluate(
        "send = window.fetch, window.fetch = async (address, options) => { const answer = await send(address, options);"
        f" if ({is_list}) await new Promise(done => {{ arrive = done }}); return answer }}, null"
    )
    page.click(".post-row h2 a", "Moths")
    page.wait_for("window.arrive")
    fill(page, "Write a comment", "Second.")
    page.click(".comment-form button", "Comment")
    page.wait_for("document.querySelector('.comment .prose')?.textContent === 'Second.'")
    page.evaluate("arrive()")
    page.wait_for("document.querySelectorAll('.comment .prose').length === 2")
    assert page.evaluate("[...document.querySelectorAll('.comment .prose')].map(e => e.textContent)") == [
        "Second.",
        "First.",
    ]


def test_a_list_that_was_left_while_it_loaded_goes_on_after_back(
    page: Page, server: Server, person: Person, make_post: Callable[..., int]
) -> None:
    for number in range(30):
        make_post(person, title=f"Post {number}")
    sign_in(page, server, person)
    rows = "document.querySelectorAll('.post-row').length"
    page.evaluate(
        "send = window.fetch, window.fetch = (address, options) => String(address).includes('cursor=')"
        " ? (window.hasAsked = true, new Promise((_, fail) => options.signal.addEventListener('abort', fail)))"
        " : send(address, options), null"
    )
    page.wait_for(f"{rows} === 20")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for("window.hasAsked")
    page.click(".post-row h2 a")
    page.wait_for("document.querySelector('.post h1')")
    page.evaluate("window.fetch = send, history.back(), null")
    page.wait_for("document.querySelector('.post-row')")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for(f"{rows} === 30")


def test_a_wrong_password_is_said_at_the_form(page: Page, person: Person) -> None:
    page.click("header a", "Sign in")
    fill(page, "E-mail address or username", person.email)
    fill(page, "Password", "a wrong one")
    page.click("main button", "Sign in")
    page.wait_for("document.querySelector('[role=alert]')?.textContent.includes('do not match')")

    page.evaluate("document.querySelector('input[type=password]').select()")
    page.type("input[type=password]", PASSWORD)
    page.press("Enter")
    page.wait_for("document.querySelector('.avatar-button')")
    assert page.evaluate("document.cookie") == "", "scripts cannot read the session"


def test_no_text_of_a_user_becomes_html(
    page: Page,
    server: Server,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    connection: Connection,
) -> None:
    author, moderator = make_person(), make_person(role="moderator")
    post_id = make_post(author, title=HOSTILE, content=f"{HOSTILE}\n\njavascript:alert(1) https://x.example/{HOSTILE}")
    make_comment(author, post_id, content=HOSTILE)
    values = {"text": HOSTILE, "short": HOSTILE[:50], "id": author.id, "post": post_id}
    connection.execute(text("UPDATE users SET display_name = :short, bio = :text WHERE id = :id"), values)
    connection.execute(text("INSERT INTO reports (reporter_id, post_id, reason) VALUES (:id, :post, :text)"), values)
    sign_in(page, server, moderator)
    username = connection.scalar(text("SELECT coalesce(username, 'user' || id) FROM users WHERE id = :id"), values)

    for path in ("/", f"/posts/{post_id}", f"/users/{username}", f"/users/{username}/comments", "/moderation",
                 f"/search?q={quote(HOSTILE)}", f"/{quote(HOSTILE)}"):  # fmt: skip
        show(page, server, path)
        assert page.evaluate("window.hacked") is None, path
        assert page.evaluate("document.querySelectorAll('main script, main img[src=x], main [onerror]').length") == 0
        assert page.evaluate("[...document.links].every(e => /^https?:$/.test(e.protocol))"), path
    show(page, server, f"/posts/{post_id}")
    assert page.evaluate("document.querySelector('.post h1').textContent") == HOSTILE
    page.wait_for("document.querySelector('.comment .prose')")
    assert page.evaluate("document.querySelector('.comment .prose').textContent") == HOSTILE


def test_back_shows_the_list_where_the_reader_left_it(
    page: Page, server: Server, person: Person, make_post: Callable[..., int]
) -> None:
    for number in range(60):
        make_post(person, title=f"Post {number}", content="word " * 60)
    sign_in(page, server, person)
    show(page, server, "/?sort=new")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for("document.querySelectorAll('.post-row').length >= 40")
    page.evaluate("window.scrollTo(0, document.querySelectorAll('.post-row')[30].offsetTop - 100)")
    page.wait_for("window.scrollY > 2000")
    before = page.evaluate("window.scrollY")
    title = page.evaluate("document.querySelectorAll('.post-row h2 a')[30].textContent")

    page.evaluate("document.querySelectorAll('.post-row h2 a')[30].click()")
    page.wait_for(f"document.querySelector('.post h1')?.textContent === {json.dumps(title)}")
    page.wait_for("window.scrollY === 0")
    assert page.evaluate("document.activeElement.tagName") in {"H1", "DIV"}, "the focus follows the page"
    requests = len(page.requests)
    page.evaluate("history.back()")
    page.wait_for("document.querySelectorAll('.post-row').length >= 40")
    page.wait_for(f"Math.abs(window.scrollY - {before}) < 3")

    assert [url for url in page.requests[requests:] if "/posts?" in url] == []
    assert page.complaints == []


def test_dialogs_and_menus_work_by_keyboard(
    page: Page, server: Server, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    post_id = make_post(make_person(), title="Moths")
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    button = "document.querySelector('button[aria-label=\"More about this post\"]')"
    page.evaluate(f"{button}.focus()")
    page.press("Enter")
    page.wait_for("document.activeElement.closest('.menu-items')")
    page.press("Escape")
    page.wait_for(f"document.activeElement === {button} && !document.querySelector('.menu-items')")

    page.press("Enter")
    page.click(".menu-items button", "Report")
    page.wait_for("document.activeElement.matches('dialog textarea')")
    page.press("Escape")
    page.wait_for("!document.querySelector('dialog')")
    assert page.complaints == []


def test_a_post_that_was_changed_elsewhere_is_not_overwritten(
    page: Page, server: Server, person: Person, make_post: Callable[..., int], connection: Connection
) -> None:
    post_id = make_post(person, title="Moths", content="mine")
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}/edit")
    fill(page, "Text", " and more")
    body = json.dumps({"title": "Moths", "content": "theirs"})
    page.evaluate(
        f"fetch('/posts/{post_id}', {{method: 'PUT', body: {json.dumps(body)},"
        " headers: {'Content-Type': 'application/json'}}).then(r => r.ok)"
    )
    page.click("main button", "Save")
    page.wait_for("document.querySelector('.conflict')?.textContent.includes('theirs')")
    page.wait_for("document.querySelector('.write textarea').value.includes('and more')")
    assert connection.scalar(text("SELECT content FROM posts")) == "theirs"

    page.click(".conflict button", "Keep mine")
    page.click("main button", "Save")
    page.wait_for("document.querySelector('.post .prose')?.textContent.includes('and more')")
    assert "and more" in connection.scalar(text("SELECT content FROM posts"))


def test_unsent_text_survives_a_reload(page: Page, server: Server, person: Person) -> None:
    sign_in(page, server, person)
    show(page, server, "/write")
    fill(page, "Title", "Half a post")
    page.wait_for("localStorage.getItem('text:post-new')?.includes('Half a post')")

    show(page, server, "/")
    show(page, server, "/write")
    page.wait_for("document.querySelector('.title-field input')?.value === 'Half a post'")
    page.click(".notice button", "Discard")
    page.click("dialog button", "Discard")
    page.wait_for("localStorage.getItem('text:post-new') === null")
    assert page.complaints == []


def test_a_lost_server_is_said_and_the_page_goes_on_after_its_return(
    page: Page, server: Server, person: Person, make_post: Callable[..., int]
) -> None:
    make_post(person, title="Moths")
    sign_in(page, server, person)
    page.go_offline(True)
    page.click("nav a", "New")
    page.wait_for(shows("cannot be reached"))
    page.go_offline(False)
    # The page also tries again by itself, so the button may be gone.
    page.evaluate("[...document.querySelectorAll('main button')].find(e => e.textContent === 'Try again')?.click()")
    page.wait_for("document.querySelector('.post-row h2')?.textContent === 'Moths'")


def test_an_api_key_is_deleted_only_after_a_question(
    page: Page, server: Server, person: Person, connection: Connection
) -> None:
    sign_in(page, server, person)
    show(page, server, "/settings/keys")
    fill(page, "Name", "My script")
    page.click("main button", "Create a key")
    page.wait_for("document.querySelector('.secret')?.textContent.length > 20")
    page.click("main button[aria-label='Delete My script']")
    page.click("dialog button", "Cancel")
    page.wait_for("!document.querySelector('dialog')")
    assert connection.scalar(text("SELECT count(*) FROM api_keys")) == 1

    page.click("main button[aria-label='Delete My script']")
    page.click("dialog button", "Delete")
    page.wait_for(shows("The key no longer works"))
    assert connection.scalar(text("SELECT count(*) FROM api_keys")) == 0
    assert page.complaints == []


def as_other(server: Server, person: Person, method: str, path: str, **json_body: object) -> httpx2.Response:
    """Send a request of another user, by their token."""
    return httpx2.request(method, f"{server.url}{path}", json=json_body or None, headers=person.headers)


def test_votes_comments_and_the_badge_change_while_a_post_is_open(
    page: Page, server: Server, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    post_id, other = make_post(person, title="Moths"), make_person()
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    page.wait_for("document.querySelector('.comments-empty')")
    wait_for_stream(page, f"posts={post_id}&")
    as_other(server, other, "PUT", f"/posts/{post_id}/vote").raise_for_status()
    page.wait_for("document.querySelector('.post .vote').textContent.trim() === '1'")

    as_other(server, other, "POST", f"/posts/{post_id}/comments", content="A hawk moth?").raise_for_status()
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new comment'")
    page.wait_for("document.querySelector('.comments h2').textContent === '1 comment'")
    page.wait_for("document.querySelector('header .count')?.textContent === '1'")
    assert page.evaluate("document.querySelector('.comment')") is None, "the page moves only when the reader wants it"
    page.click(".news button")
    page.wait_for("document.querySelector('.comment .prose')?.textContent === 'A hawk moth?'")
    page.wait_for("!document.querySelector('.news button')")
    assert page.complaints == []


def test_what_was_written_while_the_device_was_offline_arrives_afterwards(
    page: Page, server: Server, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    post_id, other = make_post(person, title="Moths"), make_person()
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    wait_for_stream(page, f"posts={post_id}&")
    page.go_offline(True)
    page.wait_for(shows("You are offline"))
    as_other(server, other, "POST", f"/posts/{post_id}/comments", content="A hawk moth?").raise_for_status()

    page.go_offline(False)
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new comment'")
    page.wait_for("document.querySelector('.count')?.textContent === '1'")
    assert any("last_event_id=" in url for url in page.requests)


def test_new_posts_wait_in_a_bar(
    page: Page, server: Server, person: Person, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    make_post(person, title="Moths")
    sign_in(page, server, person)
    show(page, server, "/?sort=new")
    wait_for_stream(page, "topics=me%2Cnew")
    as_other(server, make_person(), "POST", "/posts", title="Bees", content="many").raise_for_status()
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new post'")
    assert page.evaluate("document.querySelectorAll('.post-row').length") == 1

    page.click(".news button")
    page.wait_for("document.querySelector('.post-row h2')?.textContent === 'Bees'")
    assert page.complaints == []


def test_a_post_is_muted_and_unmuted(
    page: Page, server: Server, person: Person, make_post: Callable[..., int], connection: Connection
) -> None:
    post_id = make_post(person, title="Moths")
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    page.click("button[aria-label='More about this post']")
    page.click(".menu-items button", "Mute notifications")
    page.wait_for(shows("No more notifications"))
    mutes = text("SELECT post_id, user_id FROM post_mutes")
    assert connection.execute(mutes).all() == [(post_id, person.id)]

    page.click("button[aria-label='More about this post']")
    page.click(".menu-items button", "Unmute")
    page.wait_for(shows("notifications about this post again"))
    assert connection.execute(mutes).all() == []


def wait_for_stream(page: Page, part: str) -> None:
    """Wait until the page has a stream whose address contains `part`, and its first message."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any("/live?" in url and part in url for url in page.requests):
        assert time.monotonic() < deadline, page.requests
        page.evaluate("1")
        time.sleep(0.05)
    time.sleep(0.5)


def test_without_a_stream_the_page_asks_for_the_badge(
    start_server: Callable[..., Server], make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4", LIVE_STREAMS_MAX="1")
    person, other = make_person(), make_person()
    with (
        httpx2.stream("GET", f"{server.url}/live?topics=me", headers=other.headers) as taken,
        open_page(f"{server.url}/web/") as page,
    ):
        assert taken.status_code == 200
        as_other(server, other, "POST", f"/posts/{make_post(person)}/comments", content="Hello").raise_for_status()
        sign_in(page, server, person)
        page.wait_for("document.querySelector('header .count')?.textContent === '1'")
        assert any("/notifications/unread-count" in url for url in page.requests)
        assert [complaint for complaint in page.complaints if "503" not in complaint] == []
