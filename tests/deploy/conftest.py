"""Real nginx and real HAProxy on this machine, with the files of deploy/: only their ports and paths are changed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from sqlalchemy import text

from tests.conftest import ROOT
from tests.fixtures import EMPTIED, Server, _server, free_port
from tests.programs import find_program

DEPLOY = ROOT / "deploy"
PROXIES = ["nginx", "haproxy"]
METRICS_TOKEN = "a token of these tests, with 32 bytes and more"
# Slow clients come from 127.0.0.1, as their tool has no choice; the others from here, so that one sees the two apart.
HONEST_ADDRESS = "127.0.0.2"
TIMEOUT_SECONDS = 60


class MetricsPorts(NamedTuple):
    """Ports of the optional file for Prometheus: its own, that of the API and that of the worker."""

    listen: int
    api: int
    worker: int


@dataclass(frozen=True)
class Proxy:
    """A proxy in a process of its own."""

    name: str
    url: str
    port: int
    folder: Path

    def client(self, address: str = HONEST_ADDRESS, **options: Any) -> httpx2.Client:
        """A client of that address that does not verify certificates."""
        transport = httpx2.HTTPTransport(verify=False, local_address=address)
        return httpx2.Client(base_url=self.url, transport=transport, timeout=45, **options)

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


def certificate(folder: Path) -> None:
    """Write the certificate as both proxies expect it.

    nginx expects chain and key, HAProxy both in one file.
    """
    (folder / "tls").mkdir()
    (folder / "haproxy-tls").mkdir()
    chain, key = folder / "tls" / "fullchain.pem", folder / "tls" / "privkey.pem"
    subprocess.run(
        [
            find_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", key, "-out", chain,
        ],
        capture_output=True, check=True,
    )  # fmt: skip
    (folder / "haproxy-tls" / "site.pem").write_bytes(chain.read_bytes() + key.read_bytes())


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Return the file's text with this machine's paths and ports in place of a server's."""
    for pattern, replacement in pairs:
        assert re.search(pattern, text, re.MULTILINE), pattern
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def one_line_each(pattern: str, ports: Sequence[int]) -> tuple[str, str]:
    """Return arguments of `replaced` that give each port a line of its own.

    The lines replace the line of one server.

    Groups 1 and 2 are its name.
    """
    name = r"\g<2>{}\g<3>" if "(" in pattern else ""
    lines = [rf"\g<1>{name.format(number)}127.0.0.1:{port}\g<rest>" for number, port in enumerate(ports, 1)]
    return rf"^(.*){pattern}(?P<rest>.*)$", "\n".join(lines)


def write_nginx(
    folder: Path, port: int, upstream_ports: Sequence[int], listen: str = "plain", *, prefix: str = ""
) -> list[str]:
    """Put nginx's files in place and return its command; with a `prefix`, as in docs/deployment.md."""
    source = DEPLOY / "nginx"
    (folder / "temporary").mkdir(exist_ok=True)
    main = replaced(
        (source / "nginx.conf").read_text(),
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx/", f"{folder}/"),
        ("/var/lib/nginx/", f"{folder}/temporary/"),
    )
    if prefix:
        main = replaced(
            main,
            (r"location / \{\n *proxy_pass http://api;", f"location {prefix}/ {{\nproxy_pass http://api/;"),
            ("proxy_pass http://api;", f"rewrite ^{prefix}(/.*)$ $1 break;\nproxy_pass http://api;"),
        )
    (folder / "nginx.conf").write_text(main)
    upstream = replaced((source / "upstream.conf").read_text(), one_line_each(r"127\.0\.0\.1:8000", upstream_ports))
    (folder / "upstream.conf").write_text(upstream)
    if listen == "plain":
        text = replaced((source / "plain.conf").read_text(), ("listen 8080", f"listen 127.0.0.1:{port}"))
    else:
        text = replaced(
            for_this_nginx((source / "tls.conf").read_text()),
            ("listen 443", f"listen 127.0.0.1:{port}"),
            (r"listen \[::\]:443", f"listen [::1]:{port}"),
            ("/etc/nginx/tls/", f"{folder}/tls/"),
        )
        http_port = free_port()
        (folder / "http.conf").write_text(
            replaced(
                (source / "http.conf").read_text(),
                ("listen 80", f"listen 127.0.0.1:{http_port}"),
                (r"listen \[::\]:80", f"listen [::1]:{http_port}"),
                ("/var/www/acme", f"{folder}/acme"),
            )
        )
    (folder / "listen.conf").write_text(text)
    return [find_program("nginx"), "-c", f"{folder}/nginx.conf", "-e", "stderr"]


def for_this_nginx(text: str) -> str:
    """Return tls.conf, changed as docs/deployment.md says for nginx before 1.25.1."""
    said = subprocess.run([find_program("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
    if [int(number) for number in re.findall(r"\d+", said)[:3]] >= [1, 25, 1]:
        return text
    (script,) = re.findall(
        r"^sed -i '(.*)' /etc/nginx/listen\.conf", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE
    )
    return subprocess.run(["/bin/sed", script], input=text, capture_output=True, text=True, check=True).stdout


def write_haproxy(folder: Path, port: int, upstream_ports: Sequence[int]) -> list[str]:
    """Put HAProxy's file in place and return its command."""
    pairs = [
        ("bind :::443 v4v6", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/tls/", f"{folder}/haproxy-tls/"),
        ("/dev/log local0", "stdout format raw local0"),
        one_line_each(r"(server api)1( )127\.0\.0\.1:8000", upstream_ports),
    ]
    if os.geteuid() != 0:
        pairs.append((r"^    (user|group) haproxy\n", ""))  # The tests cannot switch to another user.
    text = replaced((DEPLOY / "haproxy" / "haproxy.cfg").read_text(), *pairs)
    (folder / "haproxy.cfg").write_text(text)
    return [find_program("haproxy"), "-f", f"{folder}/haproxy.cfg"]


def write_metrics(name: str, folder: Path, ports: MetricsPorts) -> None:
    """Add the optional file for Prometheus, as docs/observability.md says."""
    pairs = [(r"127\.0\.0\.1:8000", f"127.0.0.1:{ports.api}"), (r"127\.0\.0\.1:8001", f"127.0.0.1:{ports.worker}")]
    if name == "nginx":
        text = replaced(
            (DEPLOY / "nginx" / "metrics.conf").read_text(),
            ("listen 9443", f"listen 127.0.0.1:{ports.listen}"),
            (r"listen \[::\]:9443", f"listen [::1]:{ports.listen}"),
            ("/etc/nginx/tls/", f"{folder}/tls/"),
            *pairs,
        )
        (folder / "metrics.conf").write_text(text)
    else:
        text = replaced(
            (DEPLOY / "haproxy" / "metrics.cfg").read_text(),
            ("bind :::9443 v4v6", f"bind 127.0.0.1:{ports.listen}"),
            ("/etc/haproxy/tls/", f"{folder}/haproxy-tls/"),
            *pairs,
        )
        with (folder / "haproxy.cfg").open("a") as file:
            file.write(text)


@contextmanager
def folder_for_proxy() -> Iterator[Path]:
    """A folder that the proxy's account can enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="proxy-"))
    folder.chmod(0o711)
    try:
        certificate(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def proxy_before(
    name: str, *upstream_ports: int, listen: str = "plain", prefix: str = "", metrics: MetricsPorts | None = None
) -> Iterator[Proxy]:
    """The proxy before these servers, as soon as it listens."""
    need_proxy(name)
    port = free_port()
    with folder_for_proxy() as folder, (folder / "output.log").open("wb") as output:
        if name == "nginx":
            command = [*write_nginx(folder, port, upstream_ports, listen, prefix=prefix), "-g", "daemon off;"]
        else:
            command = [*write_haproxy(folder, port, upstream_ports), "-db"]
        if metrics is not None:
            write_metrics(name, folder, metrics)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        scheme = "http" if (name, listen) == ("nginx", "plain") else "https"
        proxy = Proxy(name, f"{scheme}://127.0.0.1:{port}", port, folder)
        try:
            _wait_until_it_listens(proxy, process)
            yield proxy
        finally:
            process.terminate()
            process.wait(timeout=TIMEOUT_SECONDS)
            sys.stdout.write(proxy.log[-5000:])


def _wait_until_it_listens(proxy: Proxy, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with proxy.client() as client:
                client.get("/livez")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{proxy.name} does not answer: {proxy.log}")


def need_proxy(name: str) -> None:
    """Skip the test if the proxy, or what makes its certificate, is not installed."""
    for program in (name, "openssl"):
        find_program(program)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A production server behind a proxy, for all tests of a module.

    The proxy is on this machine. The tables are empty at first.
    """
    from app.database.engines import get_engine

    with get_engine().begin() as connection:
        for table in EMPTIED:
            connection.execute(text(f"DELETE FROM {table}"))
    settings = {
        "ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10", "WORKERS": "1", "TRUSTED_PROXIES": "127.0.0.1",
        "METRICS_TOKEN": METRICS_TOKEN, "RATE_LIMIT_PER_MINUTE": "100000", "LOG_FORMAT": "json",
    }  # fmt: skip
    with _server(tmp_path_factory.mktemp("server"), settings) as started:
        yield started


@pytest.fixture(scope="module", params=PROXIES)
def proxy(server: Server, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """Each of the proxies, before that server."""
    with proxy_before(request.param, int(server.url.rpartition(":")[2])) as started:
        yield started


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Start a proxy of the test's own: `start_proxy("nginx", 8000, listen="tls")`."""
    with ExitStack() as stack:
        yield lambda name, *ports, **options: stack.enter_context(proxy_before(name, *ports, **options))
