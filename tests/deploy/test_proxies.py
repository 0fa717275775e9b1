"""The proxies of deploy/ before a real server: what passes, what does not, and what the server receives."""

import json
import random
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from app.config import Settings
from app.main import MAX_FORM_BYTES
from tests.deploy.conftest import (
    DEPLOY,
    HONEST_ADDRESS,
    METRICS_TOKEN,
    PROXIES,
    Proxy,
    folder_for_proxy,
    need_proxy,
    proxy_before,
    write_haproxy,
    write_nginx,
)
from tests.fixtures import Server, free_port
from tests.hostile.raw import parse
from tests.pictures import encoded

PASSWORD = "correct horse battery"
MAX_BODY_BYTES = Settings.model_fields["max_body_bytes"].default
MAX_UPLOAD_BYTES = Settings.model_fields["media_max_bytes"].default + MAX_FORM_BYTES
MAX_CONNECTIONS = 100
# Of pictures, for each address.
MAX_UPLOADS = 20
StartProxy = Callable[..., Proxy]


def assert_problem(response: httpx2.Response, status: int, code: str) -> None:
    """Assert that it has the one shape of the API's errors, in body and headers."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] in {"application/json", "application/problem+json"}
    body = response.json()
    assert set(body) == {"detail", "code", "request_id", "type", "title", "status"}
    assert (body["code"], body["status"], body["type"]) == (code, status, f"urn:social-posts:problem:{code}")
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", body["request_id"])
    assert response.headers["Cache-Control"] == "no-store"


def lines_of(server: Server, **wanted: object) -> list[dict[str, Any]]:
    """Return the matching lines of the server's log, as soon as there is one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        if found := [line for line in lines if wanted.items() <= line.items()]:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no line says {wanted}")


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("listen", ["plain", "tls"])
def test_the_program_itself_finds_nothing_wrong_with_the_file(name: str, listen: str) -> None:
    need_proxy(name)
    with folder_for_proxy() as folder:
        if name == "nginx":
            command = [*write_nginx(folder, free_port(), [8000], listen), "-t"]
        else:
            command = [*write_haproxy(folder, free_port(), [8000]), "-c"]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)

    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    # As another user, nginx cannot become www-data.
    complaints = re.findall(r"(?i)^.*\[(?:warn|alert|emerg|warning|notice)\w*\].*$", said, re.MULTILINE)
    assert not [line for line in complaints if '"user" directive' not in line]


@dataclass(frozen=True)
class Plain:
    """Port 80 of nginx with TLS, and its folder for challenges."""

    client: httpx2.Client
    challenges: Path


@pytest.fixture
def plain(start_proxy: StartProxy, server: Server) -> Iterator[Plain]:
    folder = start_proxy("nginx", int(server.url.rpartition(":")[2]), listen="tls").folder
    (port,) = re.findall(r"listen 127\.0\.0\.1:(\d+)", (folder / "http.conf").read_text())
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield Plain(client, folder / "acme" / ".well-known" / "acme-challenge")


def test_port_80_redirects_to_https(plain: Plain) -> None:
    for method in ("GET", "HEAD"):
        redirect = plain.client.request(method, "/posts?search=a%20b", headers={"Host": "api.example.com"})

        assert redirect.status_code == 301
        assert redirect.headers["Location"] == "https://api.example.com/posts?search=a%20b"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}), ("DELETE", {}), ("GET", {"Authorization": "Bearer x"}), ("GET", {"X-API-Key": "x"}),
        ("GET", {"Cookie": "session=x"}),
    ],
)  # fmt: skip
def test_port_80_refuses_what_would_send_secrets_again_and_again(
    plain: Plain, method: str, headers: dict[str, str]
) -> None:
    assert_problem(plain.client.request(method, "/login", headers=headers), 403, "https_required")


def test_port_80_serves_the_challenges_of_a_certificate_authority(plain: Plain) -> None:
    plain.challenges.mkdir(parents=True)
    (plain.challenges / "token").write_text("proof")

    answer = plain.client.get("/.well-known/acme-challenge/token")

    assert (answer.status_code, answer.text) == (200, "proof")
    assert plain.client.get("/.well-known/acme-challenge/other").status_code == 404


def test_limits_are_those_of_the_api() -> None:
    nginx = (DEPLOY / "nginx" / "nginx.conf").read_text()
    haproxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()

    limits = [str(MAX_BODY_BYTES), str(MAX_UPLOAD_BYTES)]
    assert re.findall(r"client_max_body_size (\d+);", nginx) == limits
    assert re.findall(r"req\.body_size gt (\d+)", haproxy) == limits
    assert re.findall(r"limit_conn addresses (\d+);", nginx) == [str(MAX_CONNECTIONS)] * 2
    assert re.findall(r"sc_conn_cur\(0\) gt (\d+)", haproxy) == [str(MAX_CONNECTIONS)]


def test_the_api_is_used_through_the_proxy_and_its_headers_are_left_alone(proxy: Proxy, server: Server) -> None:
    with proxy.client() as client:
        account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
        assert client.post("/users", json=account).status_code == 201
        signed_in = client.post("/login", data={"username": account["email"], "password": PASSWORD})
        headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        created = client.post("/posts", json={"title": "Moths", "content": "x" * 40_000}, headers=headers)
        read = client.get(f"/posts/{created.json()['id']}", headers=headers | {"Accept-Encoding": "identity"})
        direct = httpx2.get(f"{server.url}/posts/{created.json()['id']}", headers=headers)

    assert (created.status_code, read.status_code) == (201, 200)
    assert read.json() == direct.json()
    for name in ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "ETag"):
        assert read.headers.get_list(name) == direct.headers.get_list(name), name
    assert {*read.headers.get_list("Vary")} - {"Accept-Encoding"} == {*direct.headers.get_list("Vary")}
    assert len(read.headers.get_list("X-Request-ID")) == 1


def test_nginx_compresses_json_and_its_weak_etags_are_taken(start_proxy: StartProxy, server: Server) -> None:
    with start_proxy("nginx", int(server.url.rpartition(":")[2])).client() as client:
        account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
        client.post("/users", json=account)
        signed_in = client.post("/login", data={"username": account["email"], "password": PASSWORD})
        headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        created = client.post("/posts", json={"title": "Moths", "content": "moths and light " * 500}, headers=headers)
        path = f"/posts/{created.json()['id']}"
        plain = client.get(path, headers=headers | {"Accept-Encoding": "identity"})
        read = client.get(path, headers=headers)
        page = client.get("/posts", headers=headers)

        assert "Content-Encoding" not in plain.headers
        for answer in (read, page):
            assert answer.headers["Content-Encoding"] == "gzip"
            assert int(answer.headers.get("Content-Length", 0)) < len(answer.content) / 5
            assert "Accept-Encoding" in ", ".join(answer.headers.get_list("Vary"))
        assert read.json() == plain.json()
        weak = read.headers["ETag"]
        assert weak == f"W/{plain.headers['ETag']}"
        assert client.get(path, headers=headers | {"If-None-Match": weak}).status_code == 304
        assert client.get("/posts", headers=headers | {"If-None-Match": page.headers["ETag"]}).status_code == 304
        change = {"title": "Moths again"}
        assert client.patch(path, json=change, headers=headers | {"If-Match": weak}).status_code == 200
        assert client.patch(path, json=change, headers=headers | {"If-Match": weak}).status_code == 412


@pytest.mark.parametrize(
    ("path", "is_compressed"),
    [
        ("/posts", True), ("/v1/posts/1", True), ("/users/me", True), ("/openapi.json", True), ("/login", False),
        ("/v1/login/", False), ("/token/refresh", False), ("/api-keys", False), ("/users/me/totp", False),
        ("/v1/users/me/totp/confirm", False), ("//login", False), ("/%6cogin", False), ("/sessions", False),
    ],
)  # fmt: skip
def test_nginx_compresses_nothing_that_may_hold_a_secret(
    start_proxy: StartProxy, path: str, is_compressed: bool
) -> None:
    upstream = Upstream(body=b'{"a": "%s"}' % (b"x" * 5_000))
    with upstream.listening(), start_proxy("nginx", upstream.port).client() as client:
        answer = client.get(client.base_url.copy_with(raw_path=path.encode()))

    assert len(answer.content) > 5_000
    assert (answer.headers.get("Content-Encoding") == "gzip") is is_compressed


def test_a_forged_address_reaches_neither_the_audit_log_nor_the_limits(proxy: Proxy, server: Server) -> None:
    left = []
    with proxy.client() as client:
        for forged in ("203.0.113.9", "127.0.0.1", "203.0.113.9, 127.0.0.1", "198.51.100.7"):
            request_id = secrets.token_hex(8)
            headers = [
                ("X-Request-ID", request_id), ("X-Forwarded-For", forged), ("X-Forwarded-For", "198.51.100.8"),
                ("X-Real-IP", forged), ("Forwarded", f"for={forged}"), ("X-Forwarded-Proto", "gopher"),
            ]  # fmt: skip
            refused = client.post("/login", data={"username": "nobody@example.com", "password": "x"}, headers=headers)
            assert refused.status_code == 403
            left.append(int(refused.headers["X-RateLimit-Remaining"]))
            (access,) = lines_of(server, logger="app.access", request_id=request_id)
            (audit,) = lines_of(server, logger="app.audit", request_id=request_id)
            assert access["client"] == HONEST_ADDRESS
            assert json.loads(audit["message"])["address"] == HONEST_ADDRESS

    assert left == list(range(left[0], left[0] - 4, -1)), "each is the next request of one and the same caller"


def test_the_server_receives_the_scheme_of_the_client(proxy: Proxy) -> None:
    with Upstream().listening() as upstream, proxy_before(proxy.name, upstream.port) as own, own.client() as client:
        client.get("/livez", headers={"X-Forwarded-Proto": "ftp", "X-Forwarded-Host": "evil.example"})

    seen = upstream.requests[-1].lower()
    scheme = proxy.url.partition(":")[0]
    assert re.findall(r"^x-forwarded-proto: (.*)\r$", seen, re.MULTILINE) == [scheme]
    assert re.findall(r"^x-forwarded-for: (.*)\r$", seen, re.MULTILINE) == [HONEST_ADDRESS]
    assert "evil.example" not in seen


@pytest.mark.parametrize(
    ("given", "is_kept"), [("mine.of-1_day", True), ("x" * 65, False), ('"}{', False), ("", False)]
)
def test_a_request_has_one_id_in_both_logs(proxy: Proxy, server: Server, given: str, is_kept: bool) -> None:
    with proxy.client() as client:
        found = client.get("/", headers={"X-Request-ID": given} if given else {}).headers["X-Request-ID"]

    assert (found == given) is is_kept
    assert lines_of(server, logger="app.access", request_id=found)
    deadline = time.monotonic() + 10
    while f'"request_id":"{found}"' not in proxy.log:  # Which it writes after it has answered.
        assert time.monotonic() < deadline, proxy.log
        time.sleep(0.02)


@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
@pytest.mark.parametrize("way", ["with Content-Length", "in chunks"])
def test_a_body_past_the_limit_is_refused_in_the_apis_shape(proxy: Proxy, way: str, accept: str) -> None:
    body = b"[" + b" " * MAX_BODY_BYTES + b"]"
    content = body if way == "with Content-Length" else iter([body[:500_000], body[500_000:]])
    headers = {"Content-Type": "application/json", "Accept": accept}
    with proxy.client() as client:
        refused = client.post("/users", content=content, headers=headers)

    assert_problem(refused, 413, "body_too_large")
    if proxy.name == "nginx":
        assert refused.headers["Content-Type"] == accept


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "foo"])
def test_a_request_that_offers_another_protocol_keeps_its_body(proxy: Proxy, upgrade: str, framing: str) -> None:
    """Clients such as curl and Java's HttpClient offer h2c.

    The server used to take the body for another request.
    """
    account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
    body = json.dumps(account).encode()
    framed, length = body, f"Content-Length: {len(body)}"
    if framing == "chunked":
        framed, length = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked"
    lines = [
        "POST /users HTTP/1.1", "Host: a", "Content-Type: application/json", length,
        "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABk", "", "",
    ]  # fmt: skip
    following = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=30))
        if proxy.url.startswith("https"):
            connection = stack.enter_context(unverified().wrap_socket(connection))
        connection.sendall("\r\n".join(lines).encode())
        time.sleep(0.2)
        connection.sendall(framed + following)
        answers = parse(b"".join(iter(lambda: connection.recv(65_536), b"")))

    assert [answer.status for answer in answers] == [201, 200], answers
    assert json.loads(answers[0].body)["email"] == account["email"]


def test_an_endless_body_of_any_method_is_refused_without_filling_the_server(proxy: Proxy, server: Server) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with proxy.client() as client, suppress(httpx2.TransportError):
        refused = client.request("DELETE", "/users/me/totp", content=iter([b"x" * 100_000] * 500))
        assert_problem(refused, 413, "body_too_large")

    assert process.memory_info().rss - before < 20_000_000
    with proxy.client() as client:
        assert client.get("/livez").status_code == 200


def test_a_picture_past_the_limit_of_other_bodies_passes_and_one_past_its_own_does_not(proxy: Proxy) -> None:
    noise = Image.frombytes("RGB", (700, 700), random.Random(1).randbytes(3 * 700 * 700))
    picture = encoded(noise, "PNG")
    assert len(picture) > MAX_BODY_BYTES
    account = {"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}
    with proxy.client() as client:
        client.post("/users", json=account)
        token = client.post("/login", data={"username": account["email"], "password": PASSWORD}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

        made = client.post("/media", files={"file": ("a.png", picture)})
        assert made.status_code == 201, made.text
        shown = client.get(made.json()["url"])
        assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/webp")
        assert shown.headers["Cache-Control"] == "public, max-age=31536000, immutable"

        refused = client.post("/media", files={"file": ("a.png", bytes(MAX_UPLOAD_BYTES))})
        assert_problem(refused, 413, "body_too_large")


def test_uploads_that_an_address_leaves_unfinished_are_bounded(start_proxy: StartProxy, server: Server) -> None:
    proxy = start_proxy("nginx", int(server.url.rpartition(":")[2]))
    head = b"POST /media HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(MAX_UPLOADS):
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port))).sendall(head)
        time.sleep(1)  # Until nginx has read all heads.
        assert upload(proxy.url) == 429
        assert httpx2.get(f"{proxy.url}/livez").status_code == 200
        with proxy.client() as other:
            assert other.post("/media", files={"file": ("a.png", b"x")}).status_code == 401
    deadline = time.monotonic() + 10
    while (status := upload(proxy.url)) == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status == 401


def upload(url: str) -> int:
    return httpx2.post(f"{url}/media", files={"file": ("a.png", b"x")}).status_code


def test_a_body_at_the_limit_passes(proxy: Proxy) -> None:
    body = b'{"email": "' + b" " * (MAX_BODY_BYTES - 13) + b'"}'
    with proxy.client() as client:
        answer = client.put("/posts/1", content=body, headers={"Content-Type": "application/json"})

    assert len(body) == MAX_BODY_BYTES
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "/v1/metrics", "/v1/metrics/", "/%6detrics", "//metrics", "/metrics?x=1"]
)
def test_metrics_are_not_public(proxy: Proxy, server: Server, path: str) -> None:
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    with proxy.client() as client:
        assert_problem(client.get(proxy.url + path, headers=headers), 404, "not_found")

    assert httpx2.get(f"{server.url}/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/posts?search=" + "x" * 20_000, {}, 414, "uri_too_long"),
        ("/posts", {"X-Long": "x" * 40_000}, 431, "headers_too_large"),
        ("/posts", {f"X-{n}": "x" * 4_000 for n in range(10)}, 431, "headers_too_large"),
    ],
    ids=["a long query", "a long header", "many headers"],
)
def test_a_head_past_the_limits_is_refused_in_the_apis_shape(
    proxy: Proxy, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    with proxy.client() as client:
        assert_problem(client.get(path, headers=headers), status, code)


def test_malformed_http_is_refused_and_by_nginx_as_json(proxy: Proxy) -> None:
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        if proxy.url.startswith("https"):
            connection = stack.enter_context(unverified().wrap_socket(connection))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: a lot\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()

    assert answer.startswith("HTTP/1.1 400 ")
    if proxy.name == "nginx":
        body = json.loads(answer.partition("\r\n\r\n")[2])
        assert (body["code"], body["status"]) == ("bad_request", 400)


def test_connections_per_address_are_bounded_and_others_are_served_meanwhile(proxy: Proxy) -> None:
    head = b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            if proxy.name == "haproxy":  # It counts connections before their handshake, which may take long for 100.
                continue
            if proxy.url.startswith("https"):
                connection = stack.enter_context(unverified().wrap_socket(connection))
            connection.sendall(head)
        stack.callback(time.sleep, 0.2)  # Until the proxy has seen them go, so that the next test finds it free.
        time.sleep(1)  # Until it has read all heads.

        with proxy.client() as client:
            assert client.get("/livez").status_code == 200
        if proxy.name == "nginx":
            with proxy.client("127.0.0.1") as client:
                refused = client.get("/livez")
            assert_problem(refused, 429, "too_many_connections")
            assert int(refused.headers["Retry-After"]) > 0
        else:
            assert is_hung_up_on(proxy)


def is_hung_up_on(proxy: Proxy) -> bool:
    """Return whether a new connection ends at once.

    A connection that is accepted would wait for the client's greeting.

    Without TLS: Python leaves a socket open that ends before its handshake, and warns.
    """
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
            return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(("name", "status", "code"), [("nginx", 502, "bad_gateway"), ("haproxy", 503, "unavailable")])
def test_without_a_server_the_proxy_answers_in_the_shape_of_the_api(
    start_proxy: StartProxy, name: str, status: int, code: str
) -> None:
    with start_proxy(name, free_port()).client() as client:
        answer = client.get("/posts", headers={"X-Request-ID": "mine"})

    assert_problem(answer, status, code)
    assert answer.headers["X-Request-ID"] == "mine"
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PROXIES)
def test_a_server_that_does_not_answer_is_given_up(start_proxy: StartProxy, name: str) -> None:
    upstream = Upstream(most_answers=0, closes=False)
    with upstream.listening(), start_proxy(name, upstream.port).client() as client:
        answer = client.post("/posts", json={})

    assert_problem(answer, 504, "gateway_timeout")


@dataclass
class Upstream:
    """A server that records requests.

    It answers so many of a connection (None: all), and closes it in place of the next response, or stops responding.
    /livez is always 200, and /readyz as set.
    """

    most_answers: int | None = None
    closes: bool = True
    readiness: bytes = b"200 OK"
    body: bytes = b"{}"
    requests: list[str] = field(default_factory=list)
    connection_count: int = 0
    port: int = 0

    @contextmanager
    def listening(self) -> Iterator["Upstream"]:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        answered_count = 0
        # HAProxy ends a check as soon as it has the status.
        with connection, suppress(ConnectionError):
            while request := connection.recv(65536).decode():
                if request.startswith("GET /readyz"):
                    connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % self.readiness)
                    continue
                self.requests.append(request)
                self.connection_count += not answered_count
                is_last = self.most_answers is not None and answered_count >= self.most_answers
                if is_last and "/livez" not in request:
                    if self.closes:
                        return
                    continue
                answered_count += 1
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(self.body) + self.body)

    def arrived(self, path: str) -> int:
        return sum(f" {path} " in request for request in self.requests)


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_requests_that_may_have_had_an_effect_are_never_sent_twice(
    start_proxy: StartProxy, name: str, method: str
) -> None:
    with Upstream(most_answers=0).listening() as upstream, start_proxy(name, upstream.port).client() as client:
        answer = client.request(method, "/users", json={})

    assert_problem(answer, 502, "bad_gateway")
    assert upstream.arrived("/users") == 1


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_nor_is_it_where_the_connection_had_been_kept(start_proxy: StartProxy, name: str, method: str) -> None:
    with Upstream(most_answers=1).listening() as upstream, start_proxy(name, upstream.port).client() as client:
        assert client.get("/posts").status_code == 200
        # HAProxy closes the client's connection then, as the server would have without it.
        with suppress(httpx2.RemoteProtocolError):
            assert_problem(client.request(method, "/users", json={}), 502, "bad_gateway")

    assert upstream.arrived("/users") == 1


@pytest.mark.parametrize("name", PROXIES)
def test_reading_is_tried_again_on_another_connection(start_proxy: StartProxy, name: str) -> None:
    with Upstream(most_answers=1).listening() as upstream, start_proxy(name, upstream.port).client() as client:
        assert client.get("/posts").status_code == 200
        assert client.get("/users/1").status_code == 200

    assert upstream.arrived("/users/1") >= 2


@pytest.mark.parametrize("name", PROXIES)
def test_connections_to_the_server_are_kept(start_proxy: StartProxy, name: str) -> None:
    with Upstream().listening() as upstream, start_proxy(name, upstream.port).client() as client:
        for _ in range(20):
            assert client.get("/posts").status_code == 200

    assert upstream.arrived("/posts") == 20
    assert upstream.connection_count <= 3


def test_haproxy_sends_nothing_to_a_server_that_is_not_ready(start_proxy: StartProxy) -> None:
    with Upstream(readiness=b"503 Service Unavailable").listening() as upstream:
        with start_proxy("haproxy", upstream.port).client() as client:
            deadline = time.monotonic() + 30
            while (answer := client.get("/posts")).status_code == 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        sent_count = upstream.arrived("/posts")

    assert_problem(answer, 503, "unavailable")
    assert sent_count == upstream.arrived("/posts")


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("name", PROXIES)
def test_tls_is_modern_and_offers_http_2(start_proxy: StartProxy, server: Server, name: str) -> None:
    proxy = start_proxy(name, int(server.url.rpartition(":")[2]), listen="tls")

    def shake_hands(version: ssl.TLSVersion, ciphers: str = "DEFAULT@SECLEVEL=0") -> tuple[str | None, str | None]:
        context = unverified()
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(ciphers)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection(("127.0.0.1", proxy.port)) as plain, context.wrap_socket(plain) as connection:
            return connection.version(), connection.selected_alpn_protocol()

    assert shake_hands(ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", "h2")
    assert shake_hands(ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "h2")
    for ciphers in ("AES128-SHA@SECLEVEL=0", "ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"):
        with pytest.raises(ssl.SSLError):
            shake_hands(ssl.TLSVersion.TLSv1_2, ciphers)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionResetError)):
        shake_hands(ssl.TLSVersion.TLSv1_1)
    with proxy.client() as client:
        assert client.get("/posts").status_code == 401
