"""Sign-ups in the browser where the site wants an invite, or a proof of work."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.browser import open_page
from tests.fixtures import PASSWORD, Person, Server
from tests.web.test_browser import fill, show, shows

pytestmark = pytest.mark.needs("chromium")


def test_by_the_link_of_an_invite_and_with_a_proof_of_work(
    start_server: Callable[..., Server], make_person: Callable[..., Person], connection: Connection
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4", REGISTRATION="invite", SIGNUP_PROOF_OF_WORK="true")
    admin = make_person(role="admin")
    invite = httpx2.post(f"{server.url}/invites", json={"max_uses": 1}, headers=admin.headers).raise_for_status().json()
    with open_page(f"{server.url}/web/") as page:
        show(page, server, f"/sign-up#invite={invite['token']}")
        fill(page, "E-mail address", "ada@example.com")
        fill(page, "Username", "ada")
        fill(page, "Password", PASSWORD)
        page.click("main button", "Sign up")
        page.wait_for(shows("Welcome!"))
        assert any("/sign-up-challenge" in url for url in page.requests)
        assert page.complaints == []
    assert connection.scalar(text("SELECT uses FROM invites")) == 1
    assert connection.scalar(text("SELECT count(*) FROM users WHERE username = 'ada'")) == 1


def test_a_wrong_invite_is_said_at_its_field(start_server: Callable[..., Server], connection: Connection) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4", REGISTRATION="invite")
    with open_page(f"{server.url}/web/sign-up") as page:
        fill(page, "E-mail address", "ada@example.com")
        fill(page, "Password", PASSWORD)
        fill(page, "Invite", "made-up")
        page.click("main button", "Sign up")
        page.wait_for("document.activeElement.ariaInvalid === 'true'")
        described = "document.getElementById(document.activeElement.getAttribute('aria-describedby').split(' ').pop())"
        assert "invite" in page.evaluate(f"{described}.textContent").lower()
    assert connection.scalar(text("SELECT count(*) FROM users")) == 0


def test_what_is_wrong_is_said_once_at_each_field(start_server: Callable[..., Server]) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="4")
    with open_page(f"{server.url}/web/sign-up") as page:
        fill(page, "Username", "a")
        fill(page, "Password", "short")
        page.click("main button", "Sign up")
        page.wait_for("document.activeElement.matches('[type=email][aria-invalid=true]')")
        assert page.evaluate("[...document.querySelectorAll('.field-error')].map(e => e.textContent)") == [
            "Enter an e-mail address, such as ada@example.com.",
            "Use at least 3 characters.",
            "Use at least 8 characters.",
        ]
        page.wait_for("!document.querySelector('.form-error')")
