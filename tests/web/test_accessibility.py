"""axe-core finds no violation on the pages of the web client, in both themes, on phones and desktops."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.browser import Page, open_page
from tests.fixtures import Person, Server
from tests.web.test_browser import DESKTOP, PHONE, show, sign_in

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

VISITOR_PAGES = ["/", "/sign-in", "/sign-up", "/password-reset", "/password-reset#token=x", "/email-verification", "/x"]
SETTINGS = ["profile", "account", "security", "sessions", "keys", "blocks", "invites", "appearance", "data"]
PAGES = [
    "/", "/home", "/?sort=new", "/search?q=moth", "/tags", "/tags/moths", "/posts/{post}", "/posts/{post}/edit",
    "/write", "/users/{user}", "/users/{user}/comments", "/users/{user}/followers", "/bookmarks", "/notifications",
    "/moderation", "/moderation/log", "/admin/users", *(f"/settings/{name}" for name in SETTINGS),
]  # fmt: skip


@pytest.fixture(scope="module")
def axe(npm_folder: Path) -> str:
    """The script of axe-core."""
    return (npm_folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(PASSWORD_HASH_ROUNDS="4")


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with open_page(f"{server.url}/web/") as opened:
        yield opened


def violations(page: Page) -> list[Any]:
    """What axe-core finds on the page, as it is shown now."""
    found: list[Any] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map("
        "v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))]))"
    )
    return found


def found_on(page: Page, server: Server, axe: str, paths: list[str]) -> dict[str, list[Any]]:
    """Violations by page, size and theme."""
    found = {}
    for path in paths:
        page.navigate(f"{server.url}/livez")  # An address that differs in its fragment only would not be loaded.
        show(page, server, path)
        page.evaluate(f"{axe}; 0")
        for width, height in (PHONE, DESKTOP):
            page.resize(width, height)
            for scheme in ("light", "dark"):
                page.prefer_colours(scheme)
                if names := violations(page):
                    found[f"{path} {width} {scheme}"] = names
    return found


def test_pages_of_visitors(page: Page, server: Server, axe: str) -> None:
    assert found_on(page, server, axe, VISITOR_PAGES) == {}


def test_pages_of_members(
    page: Page,
    server: Server,
    axe: str,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    connection: Connection,
) -> None:
    admin, other = make_person(role="admin"), make_person()
    post_id = make_post(admin, title="A moth", content="It was grey. https://example.com", tags=["moths"])
    comment_id = make_comment(other, post_id, content="A hawk moth?")
    make_comment(admin, post_id, parent_id=comment_id, content="Yes")
    values = {"user": other.id, "post": post_id, "admin": admin.id}
    connection.execute(text("INSERT INTO follows (follower_id, followee_id) VALUES (:user, :admin)"), values)
    connection.execute(text("INSERT INTO reports (reporter_id, post_id, reason) VALUES (:user, :post, 'Spam')"), values)
    sign_in(page, server, admin)
    username = connection.scalar(text("SELECT coalesce(username, 'user' || id) FROM users WHERE id = :admin"), values)

    paths = [path.format(post=post_id, user=username) for path in PAGES]
    assert found_on(page, server, axe, paths) == {}


def test_menus_and_dialogs(
    page: Page,
    server: Server,
    axe: str,
    person: Person,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
) -> None:
    post_id = make_post(make_person(), title="A moth")
    sign_in(page, server, person)
    show(page, server, f"/posts/{post_id}")
    page.evaluate(f"{axe}; 0")
    page.click("button[aria-label='More about this post']")
    page.wait_for("document.querySelector('.menu-items')")
    assert violations(page) == []
    page.click(".menu-items button", "Report")
    page.wait_for("document.querySelector('dialog[open]')")
    assert violations(page) == []
