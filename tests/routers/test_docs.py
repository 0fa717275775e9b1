"""The documentation pages load, work and contact no other host: over HTTP, and in a real browser."""

import re
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from html.parser import HTMLParser
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.routers import docs
from tests.browser import Page, open_page
from tests.fixtures import PASSWORD, Person, Server

PAGES = ["/docs", "/redoc"]
PREFIXES = ["", "/v1"]


@pytest.fixture
def app() -> ASGIApp:
    """A few operations with the sign-in of the real ones, served under `/v1` too."""
    api = FastAPI(title="Posts <&> votes", docs_url=None, redoc_url=None)
    api.include_router(docs.router)
    token = OAuth2PasswordBearer(tokenUrl="login")

    @api.post("/login")
    def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
        if form.password != "correct horse":
            raise HTTPException(403, "Invalid Credentials")
        return {"access_token": f"token-of-{form.username}", "token_type": "bearer"}

    @api.get("/posts")
    def list_posts(limit: int = 10) -> list[int]:
        return list(range(limit))

    @api.get("/users/me")
    def show_me(access_token: Annotated[str, Depends(token)]) -> dict[str, str]:
        return {"seen": access_token}

    async def also_under_v1(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            scope["root_path"] = "/v1"
        await api(scope, receive, send)

    return also_under_v1


@pytest.fixture
def client(app: ASGIApp) -> TestClient:
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def server(app: ASGIApp) -> Iterator[str]:
    """Origin of the app, served on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=process.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.should_exit = True
            thread.join()


class _Markup(HTMLParser):
    """Every address that the elements of a page name, and every text of a script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline_scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.addresses += [value for name, value in attrs if value and name in {"src", "href", "data-openapi-url"}]

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script" and data.strip():
            self.inline_scripts.append(data)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("page", PAGES)
def test_everything_a_page_names_is_on_the_app_under_the_same_prefix(
    client: TestClient, page: str, prefix: str
) -> None:
    html = client.get(prefix + page).text

    addresses = _Markup(html).addresses
    assert f"{prefix}/openapi.json" in addresses
    assert len(addresses) >= 5
    for address in addresses:
        assert address.startswith(f"{prefix}/")
        assert not address.startswith("//")
        assert client.get(address).status_code == 200
    assert "://" not in html


@pytest.mark.parametrize("page", PAGES)
def test_policy_allows_only_the_apps_own_scripts_and_the_page_needs_no_other(client: TestClient, page: str) -> None:
    response = client.get(page)

    policy = response.headers["Content-Security-Policy"]
    directives = {name: values for name, *values in (directive.split() for directive in policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'"]
    assert directives["connect-src"] == ["'self'"]
    assert directives["frame-ancestors"] == ["'none'"]
    assert directives["base-uri"] == ["'none'"]
    assert "unsafe" not in policy
    assert "*" not in policy
    assert _Markup(response.text).inline_scripts == []


@pytest.mark.parametrize("page", PAGES)
def test_page_is_escaped_and_revalidated_and_answers_head(client: TestClient, page: str) -> None:
    response = client.get(page)

    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert "<title>Posts &lt;&amp;&gt; votes</title>" in response.text
    head = client.head(page)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Security-Policy"] == response.headers["Content-Security-Policy"]


def test_prefix_cannot_break_out_of_the_markup() -> None:
    api = FastAPI(title="<script>alert(1)</script>", docs_url=None, redoc_url=None)
    api.include_router(docs.router)

    html = TestClient(api, root_path='/"><script>alert(2)</script>').get("/docs").text

    assert _Markup(html).inline_scripts == []


def test_documentation_is_not_in_the_schema(client: TestClient) -> None:
    assert set(client.get("/openapi.json").json()["paths"]) == {"/login", "/posts", "/users/me"}


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("swagger-ui/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui/swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon.svg", "image/svg+xml"),
        ("redoc/redoc.standalone.js.LICENSE.txt", "text/plain; charset=utf-8"),
    ],
)
def test_asset_has_its_type_and_is_kept_for_a_year_under_its_own_version_only(
    client: TestClient, name: str, media_type: str
) -> None:
    version = sha256((docs.STATIC_FOLDER / name).read_bytes()).hexdigest()[:16]

    kept = client.get(f"/static/{name}?v={version}")
    assert kept.headers["Content-Type"] == media_type
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    for query in ("", "?v=0123456789abcdef"):
        fresh = client.get(f"/static/{name}{query}")
        assert fresh.status_code == 200
        assert fresh.headers["Cache-Control"] == "no-cache"
        unchanged = client.get(f"/static/{name}{query}", headers={"If-None-Match": fresh.headers["ETag"]})
        assert unchanged.status_code == 304


@pytest.mark.parametrize("path", ["/static/missing.js", "/static/", "/static/..%2Frouters%2Fdocs.py"])
def test_nothing_but_the_assets_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def _vendored() -> dict[str, Any]:
    return tomllib.loads((docs.STATIC_FOLDER / "vendored.toml").read_text())


@pytest.mark.parametrize("folder", ["swagger-ui", "redoc"])
def test_vendored_files_are_exactly_the_recorded_ones(folder: str) -> None:
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in (docs.STATIC_FOLDER / folder).iterdir()}

    assert found == _vendored()[folder]["sha256"]
    assert "LICENSE" in found


def test_redoc_is_what_its_maker_published_but_for_the_address_of_a_logo() -> None:
    changed = _vendored()["redoc"]["changed"]
    text = (docs.STATIC_FOLDER / "redoc" / changed["file"]).read_text()

    assert text.count(changed["ours"]) == 1
    upstream = text.replace(changed["ours"], changed["upstream"])
    assert sha256(upstream.encode()).hexdigest() == changed["upstream_sha256"]


def test_style_sheets_load_nothing() -> None:
    for path in docs.STATIC_FOLDER.rglob("*.css"):
        css = path.read_text()
        assert "@import" not in css
        assert all(target.startswith("data:") for target in re.findall(r"url\(\s*[\"']?([^\"')]*)", css))


def test_browser_shows_swagger_ui_and_a_try_out(server: str) -> None:
    with open_page(f"{server}/docs") as page:
        page.click(".opblock-summary-control", "/posts")
        page.click(".try-out__btn")
        page.click(".execute")
        page.wait_for("document.querySelector('.live-responses-table tbody')?.innerText.includes('200')")

        assert page.evaluate("document.querySelectorAll('.opblock').length") >= 3
        _assert_content(page, server)


def test_browser_signs_in_behind_authorize_and_stores_nothing(server: str) -> None:
    with open_page(f"{server}/v1/docs") as page:
        page.click(".btn.authorize")
        page.type("#oauth_username", "ada@example.com")
        page.type("#oauth_password", "correct horse")
        page.click(".auth-btn-wrapper .authorize")
        page.click(".auth-btn-wrapper .btn-done")
        page.click(".opblock-summary-control", "/users/me")
        page.click(".try-out__btn")
        page.click(".execute")
        page.wait_for("document.querySelector('.live-responses-table')?.innerText.includes('token-of-ada@example.com')")

        assert f"{server}/v1/users/me" in page.requests
        _assert_content(page, server)
        assert page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)") == "{}{}"


def test_browser_opens_authorize_at_the_password_form(start_server: Callable[..., Server], person: Person) -> None:
    """Of the real document: the forms of API key and cookie, which take the focus, are below."""
    server = start_server().url
    with open_page(f"{server}/docs") as page:
        page.click(".btn.authorize")
        page.wait_for("document.activeElement?.id === 'oauth_username'")
        shown = page.evaluate("document.querySelector('.modal-ux-content').innerText")
        forms = re.findall(r"^(\w+)\s+\(", shown, re.MULTILINE)
        page.wait_for(_is_in_view("#oauth_username"))
        page.wait_for(_is_in_view(".auth-container h4"))
        page.type("#oauth_username", person.email)
        page.type("#oauth_password", PASSWORD)
        page.click(".auth-btn-wrapper .authorize")
        page.click(".auth-btn-wrapper .btn-done")
        page.click(".btn.authorize")
        page.wait_for(_is_in_view(".auth-container h4"))
        page.click(".auth-btn-wrapper .btn-done")
        page.click(".opblock-summary-control", "Get your account")
        page.click(".try-out__btn")
        page.click(".execute")
        page.wait_for(f"document.querySelector('.live-responses-table')?.innerText.includes('{person.email}')")

        assert forms == ["OAuth2PasswordBearer", "ApiKey", "SessionCookie"]
        _assert_content(page, server)


def _is_in_view(selector: str) -> str:
    """JavaScript: whether the dialog shows the element without being scrolled."""
    element, dialog = f"document.querySelector('{selector}')", "document.querySelector('.modal-ux-content')"
    return (
        f"{dialog} && {element}?.getBoundingClientRect().top >= {dialog}.getBoundingClientRect().top"
        f" && {element}.getBoundingClientRect().bottom <= {dialog}.getBoundingClientRect().bottom"
    )


@pytest.mark.parametrize("prefix", PREFIXES)
def test_browser_shows_redoc_and_finds_an_operation(server: str, prefix: str) -> None:
    with open_page(f"{server}{prefix}/redoc") as page:
        page.wait_for("['/posts', '/users/me'].every(path => document.body.textContent.includes(path))")
        page.type("input[placeholder='Search...']", "show")
        page.wait_for("document.querySelector('[data-role=\"search:results\"]')?.innerText.includes('Show Me')")

        # Without the styles the menu would stand above the text.
        assert page.evaluate("document.querySelector('.menu-content').getBoundingClientRect().width") < 400
        _assert_content(page, server)


def _assert_content(page: Page, server: str) -> None:
    """Assert that the page has no error, no warning, nothing blocked, and no request to another host."""
    assert page.hosts == {server.removeprefix("http://")}
    assert page.complaints == []
