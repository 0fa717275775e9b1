"""All of the web client as a newcomer meets it, in two browsers against a real server, at two widths."""

import json
import re
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import Connection, text

from app.config import LOCAL_FOLDER
from tests.browser import Page, open_page
from tests.fixtures import PASSWORD, Person, Server
from tests.pictures import png
from tests.web.test_browser import DESKTOP, PHONE, fill, show, shows, sign_in, wait_for_stream

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

MAILS = LOCAL_FOLDER / "mail"
MAIL_WITHIN_SECONDS = 30
# Refusals that the journey provokes: the browser logs each. A sign-in without the code, and an edit of an old version.
PROVOKED = re.compile(r"status of (403 .*/login\?cookie=true|412 .*/posts/\d+)\)")


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(MAIL_ENABLED="true", ENVIRONMENT="development")


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def pages(server: Server, request: pytest.FixtureRequest) -> Iterator[tuple[Page, Page]]:
    """The browsers of the newcomer and of the others."""
    with open_page(f"{server.url}/web/") as first, open_page(f"{server.url}/web/") as second:
        for page in (first, second):
            page.resize(*request.param)
        yield first, second
        unexpected = [
            complaint for page in (first, second) for complaint in page.complaints if not PROVOKED.search(complaint)
        ]
        assert unexpected == []


def link_in_mail(address: str) -> str:
    """The link of the first mail to the address, in the folder of a server for development."""
    deadline = time.monotonic() + MAIL_WITHIN_SECONDS
    while time.monotonic() < deadline:
        for file in MAILS.glob("*.eml"):
            mail = message_from_bytes(file.read_bytes(), policy=default)
            found = re.search(r"http://\S+#token=\S+", mail.get_content())
            if mail["To"] == address and found:
                file.unlink()
                return found[0].replace("localhost", "127.0.0.1")
        time.sleep(0.1)
    raise AssertionError(f"no mail to {address} in {MAILS}")


def write_post(page: Page, title: str, content: str) -> int:
    """Publish a post by the form, and return its id."""
    page.click("a[href$='/write']")
    return publish(page, title, content)


def publish(page: Page, title: str, content: str) -> int:
    fill(page, "Title", title)
    fill(page, "Text", content)
    page.click("main button", "Publish")
    page.wait_for(f"document.querySelector('.post h1')?.textContent === {json.dumps(title)}")
    return int(page.evaluate("location.pathname.split('/').pop()"))


def menu(page: Page, label: str, entry: str) -> None:
    page.click(f"main button[aria-label={json.dumps(label)}]")
    page.click(".menu-items a, .menu-items button", entry)


def type_in_dialog(page: Page, value: str) -> None:
    """Type into the first field of a dialog, which gets the focus when the dialog has opened."""
    page.wait_for("document.activeElement.matches('dialog input, dialog textarea')")
    page.type("dialog input, dialog textarea", value)


def assert_fits(page: Page) -> None:
    """Nothing is wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def sign_up(page: Page, address: str) -> None:
    page.click(".welcome a", "Create an account")
    fill(page, "E-mail address", address)
    fill(page, "Username", "ada")
    fill(page, "Password", PASSWORD)
    page.click("main button", "Sign up")
    page.wait_for(shows("Nothing here yet"))
    page.navigate(link_in_mail(address))
    page.wait_for(shows("Your address is confirmed"))


def write_vote_and_comment(page: Page, picture: Path) -> int:
    page.click("main a", "Go to the front page")
    page.click("main a", "write a post")
    page.choose_files("input[type=file]", picture)
    page.type(".upload textarea", "A beach")
    post_id = publish(page, "Moths at night", "I found one. It was grey.")
    page.wait_for("document.querySelector('.post .pictures img')?.naturalWidth > 0")
    assert page.evaluate("document.querySelector('.post .pictures img').alt") == "A beach"
    assert_fits(page)
    page.click(".post .vote")
    page.wait_for("document.querySelector('.post .vote').textContent.trim() === '1'")
    fill(page, "Write a comment", "A hawk moth?")
    page.click(".comment-form button", "Comment")
    page.wait_for("document.querySelector('.comment .prose')")
    wait_for_stream(page, f"posts={post_id}&")
    return post_id


def see_a_reply_arrive(page: Page, other_page: Page, server: Server, post_id: int) -> None:
    show(other_page, server, f"/posts/{post_id}")
    other_page.click(".comment button", "Reply")
    fill(other_page, "Reply to ada", "No, an owlet moth.")
    other_page.click(".comment .comment-form button", "Reply")
    page.wait_for("document.querySelector('.news button')?.textContent === '1 new comment'")
    page.wait_for("document.querySelector('.count')?.textContent === '1'")
    page.click(".news button")
    page.wait_for("document.querySelector('.replies .prose')?.textContent === 'No, an owlet moth.'")
    page.click("a[href$='/notifications']")
    page.wait_for(shows("replied to your comment"))
    page.wait_for("!document.querySelector('.count')")
    assert_fits(page)


def follow_and_find(page: Page, server: Server) -> None:
    page.click("main a.row-link")
    page.click(".replies .byline a", "bob")
    page.click("main button", "Follow")
    page.wait_for("document.querySelector('main button[aria-pressed=true]')?.textContent.trim() === 'Following'")
    page.wait_for(shows("1 follower"))  # The answer of the server.
    assert_fits(page)
    show(page, server, "/home")
    page.wait_for("document.querySelector('.post-row h2')?.textContent === 'Owlets for sale'")
    page.type("input[type=search]", "owlets")
    page.wait_for("location.search.includes('q=owlets')")
    page.wait_for("document.querySelector('.post-row h2')?.textContent === 'Owlets for sale'")
    assert_fits(page)


def edit_what_has_changed(page: Page, server: Server, post_id: int) -> None:
    show(page, server, f"/posts/{post_id}/edit")
    fill(page, "Text", " Or brown.")
    body = json.dumps(json.dumps({"title": "Moths at night", "content": "It was a leaf.", "tags": ["moths"]}))
    page.evaluate(
        f"fetch('/posts/{post_id}', {{method: 'PATCH', body: {body}, headers: {{'Content-Type': 'application/json'}}}})"
        ".then(response => response.ok)"
    )
    page.click("main button", "Save")
    page.wait_for("document.querySelector('.conflict')?.textContent.includes('It was a leaf.')")
    assert_fits(page)
    page.click(".conflict button", "Keep mine")
    page.click("main button", "Save")
    page.wait_for("document.querySelector('.post .prose')?.textContent.includes('Or brown.')")


def report_and_block(page: Page, server: Server, post_id: int) -> None:
    show(page, server, f"/posts/{post_id}")
    menu(page, "More about this post", "Report")
    type_in_dialog(page, "Owlets are protected")
    page.click("dialog button", "Send report")
    page.wait_for(shows("The moderators will look at it"))
    show(page, server, "/users/bob")
    menu(page, "More about bob", "Block")
    page.wait_for(shows("You have blocked bob"))
    show(page, server, "/settings/blocks")
    page.wait_for("document.querySelector('button[aria-label=\"Unblock bob\"]')")


def moderate(page: Page, server: Server, moderator: Person) -> None:
    page.click(".avatar-button")
    page.click(".menu-items button", "Sign out")
    page.wait_for(shows("A quiet place"))
    sign_in(page, server, moderator)
    show(page, server, "/moderation")
    page.wait_for(shows("Owlets are protected"))
    assert_fits(page)
    page.click(".post-row button", "Remove")
    type_in_dialog(page, "No animals for sale")
    page.click("dialog button", "Remove")
    page.wait_for(shows("Nothing to do"))


def turn_on_the_second_factor_and_sign_in(page: Page, server: Server) -> None:
    show(page, server, "/settings/security")
    fill(page, "Current password", PASSWORD)
    page.click("main button", "Set it up")
    page.wait_for("document.querySelector('.qr')?.naturalWidth > 0")
    secret = page.evaluate("document.querySelector('.secret').textContent").replace(" ", "")
    fill(page, "Code that the app shows", pyotp.TOTP(secret).now())
    page.click("main button", "Turn it on")
    page.wait_for("document.querySelectorAll('.codes li').length > 5")
    assert_fits(page)
    recovery_code = page.evaluate("document.querySelector('.codes li').textContent")
    page.click(".avatar-button")
    page.click(".menu-items button", "Sign out")
    page.wait_for(shows("A quiet place"))
    show(page, server, "/sign-in")
    fill(page, "E-mail address or username", "ada")
    fill(page, "Password", PASSWORD)
    page.click("main button", "Sign in")
    fill(page, "Code", recovery_code)
    page.click("main button", "Sign in")
    page.wait_for("document.querySelector('.avatar-button')")


def export_and_leave(page: Page, server: Server) -> None:
    show(page, server, "/settings/data")
    export = "fetch(document.querySelector('a[download]').href).then(response => response.arrayBuffer())"
    signature = page.evaluate(f"{export}.then(data => [...new Uint8Array(data).slice(0, 2)])")
    assert bytes(signature) == b"PK"
    page.click("main button", "Delete the account")
    type_in_dialog(page, "ada")
    page.click("dialog button", "Delete everything")
    page.wait_for(shows("Your account is deleted"))
    page.wait_for(shows("A quiet place"))


def test_a_newcomer_can_do_everything(
    pages: tuple[Page, Page],
    server: Server,
    make_person: Callable[..., Person],
    connection: Connection,
    tmp_path: Path,
) -> None:
    page, other_page = pages
    other, moderator = make_person(username="bob"), make_person(role="moderator", username="mod")
    beach = tmp_path / "beach.png"
    beach.write_bytes(png())

    sign_up(page, f"ada{time.time_ns()}@example.com")
    assert connection.scalar(text("SELECT email_verified_at FROM users WHERE username = 'ada'")) is not None
    post_id = write_vote_and_comment(page, beach)
    sign_in(other_page, server, other)
    see_a_reply_arrive(page, other_page, server, post_id)
    bobs_id = write_post(other_page, "Owlets for sale", "Ten for a crown.")
    follow_and_find(page, server)
    edit_what_has_changed(page, server, post_id)
    report_and_block(page, server, bobs_id)
    moderate(other_page, server, moderator)
    reason = text("SELECT removal_reason FROM posts WHERE id = :id")
    assert connection.scalar(reason, {"id": bobs_id}) == "No animals for sale"
    turn_on_the_second_factor_and_sign_in(page, server)
    export_and_leave(page, server)
    left = text("SELECT count(*) FROM users WHERE username = 'ada' AND NOT is_deleted")
    assert connection.scalar(left) == 0
