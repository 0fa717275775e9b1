"""The web client is served under `/web/`: its page, files, policy and caching, and the way there for browsers."""

import gzip
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import ConfigurationError, get_settings
from app.routers import web
from tests.fixtures import Server

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
MAX_FIRST_LOAD_BYTES = 100_000


class _Page(HTMLParser):
    """The addresses that a page loads, and the texts of its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.attributes = values
        address = values.get("src") if tag == "script" else values.get("href") if tag == "link" else None
        if address:
            self.loaded.append(address)
        self.inline += [name for name in values if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in {"script", "style"} and data.strip():
            self.inline.append(data)


@pytest.fixture
def browser(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The client, which follows no redirect, and whose answers are no part of the OpenAPI document."""
    monkeypatch.setattr(client, "follow_redirects", False)
    monkeypatch.setitem(client.event_hooks, "response", [])
    return client


@pytest.mark.parametrize(("path", "location"), [("/", "/web/"), ("/v1/", "/v1/web/"), ("/v1", "/v1/web/")])
def test_the_root_leads_browsers_to_the_client(browser: TestClient, path: str, location: str) -> None:
    response = browser.get(path, headers=BROWSER)

    assert (response.status_code, response.headers["Location"]) == (307, location)
    assert "Accept" in response.headers["Vary"].split(", ")
    assert browser.head(path, headers=BROWSER).headers["Location"] == location
    assert browser.get(location).headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html;q=0.5", "image/png", ""])
def test_the_root_greets_every_other_client(browser: TestClient, accept: str) -> None:
    response = browser.get("/", headers={"Accept": accept})

    assert response.status_code == 200
    assert set(response.json()) == {"message", "docs", "redoc", "openapi"}


@pytest.mark.parametrize("page", ["password-reset", "email-verification"])
def test_links_in_mails_lead_browsers_to_the_client(browser: TestClient, page: str) -> None:
    response = browser.get(f"/{page}", headers=BROWSER)

    assert (response.status_code, response.headers["Location"]) == (307, f"/web/{page}")
    refused = browser.get(f"/{page}", headers={"Accept": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in refused.headers["Allow"]


@pytest.mark.parametrize("path", ["/web", "/web/", "/web/posts/1", "/web/users/ada/comments", "/v1/web/search"])
def test_every_path_of_the_client_is_the_same_page(browser: TestClient, path: str) -> None:
    response = browser.get(path)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-cache"
    page = _Page(response.text)
    prefix = "/v1" if path.startswith("/v1") else ""
    assert page.attributes["data-root"] == prefix
    assert len(page.loaded) > 15
    for address in page.loaded:
        assert address.startswith(f"{prefix}/web/assets/")
        assert browser.get(address).status_code == 200
    assert "$" not in response.text
    unchanged = browser.get(path, headers={"If-None-Match": response.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["Content-Security-Policy"] == web.POLICY


def test_the_policy_allows_the_servers_own_files_only_and_the_page_has_nothing_inline(browser: TestClient) -> None:
    response = browser.get("/web/")

    policy = response.headers["Content-Security-Policy"]
    directives = {name: values for name, *values in (directive.split() for directive in policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    for kind in ("script-src", "style-src", "connect-src"):
        assert directives[kind] == ["'self'"]
    assert directives["frame-ancestors"] == directives["base-uri"] == ["'none'"]
    # The browser refuses to make HTML of text.
    assert (directives["require-trusted-types-for"], directives["trusted-types"]) == (["'script'"], ["'none'"])
    assert "unsafe" not in policy
    assert "*" not in policy
    assert _Page(response.text).inline == []


def test_the_page_says_what_visitors_may_do(browser: TestClient) -> None:
    attributes = _Page(browser.get("/web/").text).attributes

    assert attributes["data-public-reads"] == "false"
    assert attributes["data-registration"] == "open"
    assert attributes["data-proof-of-work"] == "false"


def test_files_are_kept_for_a_year_under_their_own_version_only(browser: TestClient) -> None:
    (main,) = [address for address in _Page(browser.get("/web/").text).loaded if address.endswith("/main.js")]

    kept = browser.get(main)
    other = browser.get(re.sub("/assets/[0-9a-f]+/", "/assets/0123456789abcdef/", main))

    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert kept.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert (other.headers["Cache-Control"], other.content) == ("no-cache", kept.content)


def test_files_are_compressed_for_clients_that_say_so(browser: TestClient) -> None:
    (style,) = [address for address in _Page(browser.get("/web/").text).loaded if address.endswith("/style.css")]

    plain = browser.get(style, headers={"Accept-Encoding": "identity"})
    packed = browser.get(style, headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == plain.content == (web.WEB_FOLDER / "style.css").read_bytes()
    assert "Accept-Encoding" in plain.headers["Vary"].split(", ")
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 3


@pytest.mark.parametrize("name", ["nothing.js", "../app/config.py", "..%2Fapp%2Fconfig.py", "index.html", ""])
def test_only_files_of_the_client_are_served(browser: TestClient, name: str) -> None:
    response = browser.get(f"/web/assets/0123456789abcdef/{name}")

    assert response.status_code == 404 or _Page(response.text).attributes  # The page, where the path is another.
    assert b"BaseSettings" not in response.content


def test_the_first_load_is_small(browser: TestClient) -> None:
    page = browser.get("/web/")
    files = _Page(page.text).loaded
    assert len(files) == len(set(files))
    modules = {address.partition("/assets/")[2].partition("/")[2] for address in files}
    assert {"main.js", "pages.js", "pages/front.js", "components/layout.js", "vendor/preact.js"} <= modules
    assert not {"pages/post.js", "pages/settings.js"} & modules

    sizes = {
        address: int(browser.get(address, headers={"Accept-Encoding": "gzip"}).headers["Content-Length"])
        for address in files
    }

    assert len(gzip.compress(page.content)) + sum(sizes.values()) <= MAX_FIRST_LOAD_BYTES, sizes


def test_a_missing_folder_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set WEB_CLIENT_ENABLED=false"):
        web.WebClient({}, tmp_path)


def test_a_setting_turns_the_client_off(start_server: Callable[..., Server]) -> None:
    assert get_settings().web_client_enabled
    with httpx2.Client(base_url=start_server(WEB_CLIENT_ENABLED="false").url) as browser:
        assert set(browser.get("/", headers=BROWSER).json()) == {"message", "docs", "redoc", "openapi"}
        for path in ("/web", "/web/", "/web/posts/1", "/web/assets/0123456789abcdef/main.js"):
            assert browser.get(path, headers=BROWSER).status_code == 404
        assert browser.get("/password-reset", headers=BROWSER).status_code == 405


def test_a_server_says_of_itself_what_the_client_asks(start_server: Callable[..., Server]) -> None:
    server = start_server(PUBLIC_READS="true", REGISTRATION="invite", SIGNUP_PROOF_OF_WORK="true")

    attributes = _Page(httpx2.get(f"{server.url}/web/").text).attributes

    assert attributes["data-public-reads"] == "true"
    assert attributes["data-registration"] == "invite"
    assert attributes["data-proof-of-work"] == "true"
