"""`Server-Timing` and `X-Profile`: in development only, and profiles for admins only."""

import re
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.main import middleware
from app.middleware.profiling import Profiling
from app.middleware.request_context import RequestContext
from tests.fixtures import Person, Server

TIMING = re.compile(r'total;dur=(\d+\.\d), database;dur=(\d+\.\d);desc="(\d+) statements"')


def test_server_timing_counts_statements_also_those_of_a_batch(client: TestClient, person: Person) -> None:
    for path in ("/users/me", "/posts"):
        found = TIMING.fullmatch(client.get(path, headers=person.headers).headers["Server-Timing"])
        assert found is not None
        total, database, statements = found.groups()
        assert float(total) >= float(database) > 0
        assert int(statements) > 0
    assert client.get("/livez").headers["Server-Timing"].endswith('database;dur=0.0;desc="0 statements"')


def test_production_shows_no_timing_and_no_server_profiles_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[object] = [each.cls for each in middleware(get_settings())]
    assert Profiling not in layers
    assert RequestContext in layers

    monkeypatch.setattr(get_settings(), "environment", "production")

    assert [each.kwargs["shows_timing"] for each in middleware(get_settings()) if "shows_timing" in each.kwargs] == [
        False
    ]


def test_only_admins_get_profiles_and_the_request_is_executed(
    start_server: Callable[..., Server], make_person: Callable[..., Person], connection: Connection
) -> None:
    url = start_server(PROFILING_ENABLED="true").url
    admin = make_person(role="admin")
    body = {"title": "profiled", "content": "c"}

    for caller in (make_person(), make_person(role="moderator")):
        headers = caller.headers | {"X-Profile": "text"}
        assert httpx2.get(f"{url}/users/me", headers=headers, timeout=20).json()["id"] == caller.id
    assert httpx2.get(f"{url}/users/me", headers={"X-Profile": "text"}, timeout=20).status_code == 401
    ended = admin.headers | {"X-Profile": "text"}
    shown = httpx2.post(f"{url}/posts", json=body, headers=ended, timeout=20)
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert shown.text.startswith("POST /posts: 201\n")
    # A function of the route, which runs in a thread otherwise.
    assert "create_post" in shown.text
    assert connection.scalar(text("SELECT count(*) FROM posts WHERE title = 'profiled'")) == 1
    page = httpx2.get(f"{url}/posts", headers=admin.headers | {"X-Profile": "html"}, timeout=20)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>GET /posts: 200</title>" in page.text
    assert httpx2.get(f"{url}/posts", headers=admin.headers, timeout=20).json()[0]["Post"]["title"] == "profiled"
    connection.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": admin.session_id})
    assert httpx2.get(f"{url}/posts", headers=ended, timeout=20).status_code == 401
