"""Hashing passwords neither delays other requests nor takes the server's memory."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from urllib.parse import urlencode

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.api.route import CredentialsRoute
from app.config import get_settings
from app.security import passwords
from tests.contract.answers import assert_refused
from tests.fixtures import PASSWORD, ROOT, Person, Server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_hashing_gives_way_to_answering() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert asyncio.run(passwords.in_hashing_thread(None, None, niceness)) > niceness()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_hashing_gives_way_also_in_a_process_that_was_started_to_give_way_itself() -> None:
    program = """
import asyncio, os, threading
os.nice(6)
from app.security import passwords
def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
print(asyncio.run(passwords.in_hashing_thread(None, None, niceness)) - niceness())
"""

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(ran.stdout) > 0


def test_sign_in_whose_client_has_gone_while_it_waits_costs_no_hash(
    start_server: Callable[..., Server], person: Person, connection: Connection
) -> None:
    server = start_server(PASSWORD_HASH_ROUNDS="12")
    full = passwords._context().handler("bcrypt_sha256").using(rounds=12).hash(PASSWORD)
    connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": full})
    form = urlencode({"username": person.email, "password": PASSWORD}).encode()
    head = "POST /login HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}"
    port = int(server.url.rsplit(":", 1)[1])

    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
    for one in sockets:
        one.sendall(f"{head.format(len(form))}\r\n\r\n".encode() + form)
    time.sleep(0.2)  # One is being hashed for a quarter of a second, or more.
    for one in sockets:
        one.close()
    assert httpx2.post(f"{server.url}/login", content=form, headers=FORM, timeout=60).status_code == 200

    signed_in = connection.scalar(text("SELECT count(*) FROM security_events WHERE event = 'signed_in'"))
    assert 1 <= signed_in <= 2 + get_settings().hashing_thread_count


HASHING: list[tuple[str, str]] = [
    ("POST", "/login"), ("POST", "/token"), ("POST", "/users"), ("PATCH", "/users/me"), ("PUT", "/users/me"),
    ("PATCH", "/users/{id}"), ("PUT", "/users/{id}"), ("POST", "/users/me/totp"), ("DELETE", "/users/me/totp"),
    ("POST", "/password-reset/confirm"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), HASHING)
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_request_that_may_wait_to_hash_has_a_small_body(
    client: TestClient, person: Person, method: str, path: str, *, is_declared: bool
) -> None:
    body = b'{"unknown": [' + b"[]," * 10_000 + b"[]]}"
    headers = {**person.headers, "Content-Type": "application/json"}
    if path in {"/login", "/token"}:
        body, headers = b"a=&" * 10_000, person.headers | FORM
    content = body if is_declared else iter([body[:10_000], body[10_000:]])

    answer = client.request(method, path.format(id=person.id), content=content, headers=headers)

    assert_refused(answer, 413, "body_too_large", "The request body is larger than 16384 bytes")


def test_every_route_of_a_module_that_hashes_takes_small_bodies() -> None:
    hashing = [path for path in (ROOT / "app" / "routers").glob("*.py") if "in_hashing_thread(" in path.read_text()]

    assert {path.stem for path in hashing} == {"auth", "password_reset", "totp", "user"}
    for path in hashing:
        routes = import_module(f"app.routers.{path.stem}").router.routes
        assert {type(route) for route in routes} == {CredentialsRoute}
