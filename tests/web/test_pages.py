"""What a reader meets on single pages of the web client: menus, notifications, the way in for visitors."""

import time
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Engine, text

from tests.browser import open_page
from tests.fixtures import Person, Server
from tests.pictures import png
from tests.web.test_browser import DESKTOP, PHONE, show, shows, sign_in

pytestmark = pytest.mark.needs("chromium")


def test_notifications_of_a_page_that_was_loaded_directly_become_read(
    start_server: Callable[..., Server], person: Person, make_person: Callable[..., Person]
) -> None:
    server, other = start_server(PASSWORD_HASH_ROUNDS="4"), make_person()
    httpx2.put(f"{server.url}/users/{person.id}/follow", headers=other.headers).raise_for_status()
    with open_page(f"{server.url}/web/") as page:
        sign_in(page, server, person)
        page.wait_for("document.querySelector('.count')")
        show(page, server, "/notifications")
        page.wait_for(f"{shows('follows you now')} && !document.querySelector('.count')")
        page.wait_for("performance.getEntriesByType('resource').some(e => e.name.endsWith('/notifications/read'))")

        counts = httpx2.get(f"{server.url}/notifications/unread-count", headers=person.headers).json()
        assert counts["unread"] == 0
        assert page.complaints == []


def test_a_notification_that_the_list_has_already_is_not_announced_as_new(
    start_server: Callable[..., Server], person: Person, make_person: Callable[..., Person], database: Engine
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4")

    def follow() -> None:
        httpx2.put(f"{server.url}/users/{person.id}/follow", headers=make_person().headers).raise_for_status()

    with open_page(f"{server.url}/web/") as page, database.connect() as older:
        sign_in(page, server, person)
        # The message arrives when older transactions have ended.
        older.execute(text("SELECT pg_current_xact_id()"))
        follow()
        show(page, server, "/notifications")
        page.wait_for(shows("follows you now"))
        time.sleep(1)  # Until the stream of the page has begun.
        older.rollback()
        time.sleep(1)
        assert not page.evaluate(shows("New notifications"))
        follow()
        page.wait_for(shows("New notifications"))


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_menus_open_within_the_window(
    start_server: Callable[..., Server],
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    size: tuple[int, int],
) -> None:
    server, author, moderator = start_server(PASSWORD_HASH_ROUNDS="4"), make_person(), make_person(role="moderator")
    post_id = make_post(author, content="A line.\n" * 60)
    for _ in range(3):
        make_comment(author, post_id)
    rectangle = "document.querySelector('.menu-items').getBoundingClientRect()"
    with open_page(f"{server.url}/web/") as page:
        page.resize(*size)
        sign_in(page, server, moderator)
        show(page, server, f"/posts/{post_id}")
        page.wait_for("document.querySelectorAll('.comment').length === 3")
        for selector in (".post .menu button", ".comment:last-child .menu button"):
            button = f"document.querySelector('{selector}')"
            # Just above the lower edge of the window, and of the bar that phones have there.
            page.evaluate(f"window.scrollBy(0, {button}.getBoundingClientRect().bottom - innerHeight + 70)")
            page.evaluate(f"{button}.click()")
            page.wait_for("document.activeElement.closest('.menu-items')")
            page.wait_for(f"{rectangle}.left >= 0 && {rectangle}.right <= innerWidth")
            page.wait_for(f"{rectangle}.top >= 0 && {rectangle}.bottom <= innerHeight")
            page.press("Escape")
        assert page.complaints == []


@pytest.mark.parametrize("registration", ["open", "closed"])
def test_a_public_site_says_what_an_account_is_for(start_server: Callable[..., Server], registration: str) -> None:
    with open_page(f"{start_server(PUBLIC_READS='true', REGISTRATION=registration).url}/web/") as page:
        page.wait_for("document.querySelector('main .notice a[href$=\"/sign-in\"]')")
        is_open = page.evaluate("document.querySelector('main .notice a[href$=\"/sign-up\"]') !== null")
        assert is_open == (registration == "open")


def test_the_text_field_of_a_dialog_has_its_rows(
    start_server: Callable[..., Server],
    person: Person,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
) -> None:
    server, post_id = start_server(PASSWORD_HASH_ROUNDS="4"), make_post(make_person())
    with open_page(f"{server.url}/web/") as page:
        sign_in(page, server, person)
        show(page, server, f"/posts/{post_id}")
        page.click("button[aria-label='More about this post']")
        page.click(".menu-items button", "Report")
        page.wait_for("document.querySelector('dialog[open] textarea')")

        style = "(s => parseFloat(s.height) / parseFloat(s.lineHeight))(getComputedStyle(field))"
        rows = page.evaluate(f"(field => [field.rows, {style}])(document.querySelector('dialog textarea'))")
        assert rows[1] > rows[0] > 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/posts/{post}/edit", "This post is not yours"),
        ("/moderation", "This page is for moderators"),
        ("/admin/users", "This page is for admins"),
    ],
)
def test_a_page_that_is_for_others_says_so(
    start_server: Callable[..., Server],
    person: Person,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    path: str,
    said: str,
) -> None:
    server, post_id = start_server(PASSWORD_HASH_ROUNDS="4"), make_post(make_person())
    with open_page(f"{server.url}/web/") as page:
        sign_in(page, server, person)
        show(page, server, path.format(post=post_id))

        assert page.evaluate("document.querySelector('main h1').textContent") == said
        assert page.evaluate("document.querySelector('main form')") is None
        assert page.evaluate("document.querySelector('main a')") is not None
        assert page.complaints == []


def test_a_moderator_sees_what_is_reported_and_deletes_a_picture(
    start_server: Callable[..., Server], person: Person, make_person: Callable[..., Person]
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4")
    moderator, author = make_person(role="moderator"), make_person(username="bob")
    with httpx2.Client(base_url=server.url, headers=author.headers) as client:
        post_id = client.post("/posts", json={"title": "Cheap watches", "content": "Buy. " * 100}).json()["id"]
        media_id = client.post("/media", files={"file": ("picture.png", png())}).json()["id"]
        client.put("/users/me/avatar", json={"media_id": media_id}).raise_for_status()
    report = {"post_id": post_id, "reason": "Spam"}
    httpx2.post(f"{server.url}/reports", json=report, headers=person.headers).raise_for_status()
    with open_page(f"{server.url}/web/") as page:
        sign_in(page, server, moderator)
        show(page, server, "/moderation")
        page.wait_for("document.querySelector('.quote strong')?.textContent === 'Cheap watches'")
        assert page.evaluate("document.querySelector('.quote').innerText.split('\\n').length") == 2
        assert "Buy. …" in page.evaluate("document.querySelector('.quote').innerText")

        show(page, server, "/users/bob")
        page.click("button[aria-label='More about bob']")
        page.click(".menu-items button", "Delete picture")
        page.click("dialog[open] button", "Delete")
        page.wait_for("!document.querySelector('dialog[open]') && !document.querySelector('main header img')")
        assert page.complaints == []
    assert httpx2.get(f"{server.url}/users/me", headers=author.headers).json()["avatar"] is None
