"""The API under a path of a site: `ROOT_PATH`, behind an nginx that removes the path."""

import re
import secrets
from collections.abc import Callable
from urllib.parse import urljoin

import pytest

from tests.deploy.conftest import METRICS_TOKEN, Proxy
from tests.fixtures import PASSWORD, Server
from tests.pictures import png

PREFIX = "/api"


@pytest.fixture
def proxy(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> Proxy:
    server = start_server(
        ROOT_PATH=PREFIX, TRUSTED_PROXIES="127.0.0.1", METRICS_TOKEN=METRICS_TOKEN, ENVIRONMENT="development"
    )
    return start_proxy("nginx", int(server.url.rpartition(":")[2]), prefix=PREFIX)


def test_a_client_follows_links_and_locations_under_a_prefix_that_the_proxy_removes(proxy: Proxy) -> None:
    with proxy.client() as client:
        account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
        signed_up = client.post("/api/users", json=account)
        assert signed_up.status_code == 201
        form = {"username": account["email"], "password": PASSWORD}
        token = client.post("/api/login", data=form).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        for path in ("/api/posts", "/api/v1/posts", "/api/posts/"):
            created = client.post(path, json={"title": "t", "content": "c"})
            location = urljoin(str(created.url), created.headers["Location"])
            assert client.get(location).json()["Post"]["id"] == created.json()["id"]

        first = client.get("/api/posts?limit=1")
        (following,) = re.findall(r'<([^>]*)>; rel="next"', first.headers["Link"])
        second = client.get(urljoin(str(first.url), following))
        assert second.status_code == 200
        assert second.json()[0]["Post"]["id"] == first.json()[0]["Post"]["id"] - 1


def test_pictures_are_uploaded_and_shown_under_a_prefix(proxy: Proxy) -> None:
    with proxy.client() as client:
        account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
        client.post("/api/users", json=account)
        form = {"username": account["email"], "password": PASSWORD}
        token = client.post("/api/login", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}

        made = client.post("/api/media", files={"file": ("a.png", png())}, headers=headers)

        assert made.status_code == 201, made.text
        assert client.get(made.json()["url"]).headers["Content-Type"] == "image/webp"


def test_the_documentation_works_under_a_prefix_that_the_proxy_removes(proxy: Proxy) -> None:
    with proxy.client() as client:
        greeting = client.get("/api/").json()
        assert (greeting["docs"], greeting["openapi"]) == ("/api/docs", "/api/openapi.json")
        for page in ("/api/docs", "/api/redoc", "/api/v1/docs"):
            html = client.get(page)
            addresses = re.findall(r'(?:href|src|data-openapi-url)="([^"]*)"', html.text)
            assert len(addresses) >= 4
            for address in addresses:
                assert client.get(urljoin(str(html.url), address)).status_code == 200, address
        document = client.get("/api/openapi.json").json()
        assert document["servers"][0]["url"] == "/api"


def test_metrics_stay_hidden_and_the_api_answers_beside_the_proxy_too(proxy: Proxy) -> None:
    with proxy.client() as client:
        for path in ("/api/metrics", "/api/v1/metrics", "/metrics"):
            assert client.get(path, headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).status_code == 404
        assert client.get("/api/livez").status_code == 200
        assert client.get("/livez").status_code == 404


def test_answers_with_secrets_are_not_compressed_under_a_prefix(proxy: Proxy) -> None:
    with proxy.client() as client:
        account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
        assert client.post("/api/users", json=account).status_code == 201
        form = {"username": account["email"], "password": PASSWORD}
        signed_in = client.post("/api/login", data=form)
        client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        enrolled = client.post("/api/users/me/totp", json={"current_password": PASSWORD})
        assert enrolled.status_code == 200
        assert int(enrolled.headers["Content-Length"]) > 1024, "nginx would not compress it in any case"
        page = client.get("/api/openapi.json")
        assert page.headers["Content-Encoding"] == "gzip"
        for answer in (signed_in, enrolled):
            assert "Content-Encoding" not in answer.headers
