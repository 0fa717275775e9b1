"""The scrape configurations of docs/observability.md, run by Prometheus on the layouts of deploy/."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.conftest import HONEST_ADDRESS, METRICS_TOKEN, PROXIES, MetricsPorts, Proxy, proxy_before
from tests.figures import Figure
from tests.fixtures import Server, _server, free_port
from tests.programs import find_program

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCS = (ROOT / "docs" / "observability.md").read_text()
TIMEOUT_SECONDS = 60
SAME_MACHINE, PROXY, COMPOSE = [
    block for block in re.findall(r"^```yaml\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE) if "scrape_configs" in block
]
HEADERS = {"Authorization": f"Bearer {METRICS_TOKEN}"}

needs_prometheus = pytest.mark.needs("prometheus")


def environment_of(name: str) -> dict[str, str]:
    """Return the environment that a systemd unit sets itself."""
    lines = re.findall(r"^Environment=(.*)$", (ROOT / f"deploy/systemd/{name}.service").read_text(), re.MULTILINE)
    return dict(assignment.split("=", 1) for line in lines for assignment in shlex.split(line))


def wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}; exit code {process.poll()}")


@contextmanager
def worker_on(port: int, folder: Path, settings: dict[str, str]) -> Iterator[None]:
    """The background worker, with the environment of its systemd unit, but on this metrics port."""
    # Cleanup runs by default, but not in the environment of the tests.
    own = {"WORKER_METRICS_PORT": str(port), "CLEANUP_INTERVAL_MINUTES": "60"}
    environment = os.environ | environment_of("social-posts-worker") | settings | own
    with (folder / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        wait_until_it_listens(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT_SECONDS)
        sys.stdout.write((folder / "worker.log").read_text()[-5000:])


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """The lines of /etc/social-posts/environment."""
    return {
        "METRICS_TOKEN": METRICS_TOKEN, "PASSWORD_HASH_ROUNDS": "10", "WORKERS": "2", "TRUSTED_PROXIES": "127.0.0.1",
    }  # fmt: skip


@pytest.fixture(scope="module")
def api(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the environment of its systemd unit, but on a free port."""
    environment = environment_of("social-posts")
    assert environment.pop("PORT") == "8000"
    with _server(tmp_path_factory.mktemp("api"), environment | settings) as server:
        yield server


@pytest.fixture(scope="module")
def ports(settings: dict[str, str], api: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsPorts]:
    """The ports of that server and of a worker, and a free one for a proxy."""
    found = MetricsPorts(listen=free_port(), api=int(api.url.rpartition(":")[2]), worker=free_port())
    with worker_on(found.worker, tmp_path_factory.mktemp("worker"), settings):
        yield found


def query(url: str, expression: str) -> list[tuple[str, float]]:
    """Return job and value of each sample."""
    response = httpx2.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10)
    response.raise_for_status()
    return sorted(
        (found["metric"].get("job", ""), float(found["value"][1])) for found in response.json()["data"]["result"]
    )


@contextmanager
def prometheus(folder: Path, configuration: str, targets: dict[str, int], ca_file: Path | None = None) -> Iterator[str]:
    """Prometheus with a configuration of the document.

    Only targets, paths and intervals are changed.
    """
    (folder / "token").write_text(METRICS_TOKEN)
    replacements = {
        "/etc/prometheus/social-posts-token": str(folder / "token"),
        "/etc/prometheus/social-posts-alerts.yml": str(ALERTS),
        "15s": "1s",
        **{target: f"127.0.0.1:{port}" for target, port in targets.items()},
    }
    for documented, here in replacements.items():
        assert documented in configuration, documented
        configuration = configuration.replace(documented, here)
    (folder / "prometheus.yml").write_text(configuration)
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | ({"SSL_CERT_FILE": str(ca_file)} if ca_file else {})
    command = [
        find_program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT_SECONDS)
        sys.stdout.write((folder / "prometheus.log").read_text()[-5000:])


def assert_both_jobs_are_scraped(url: str) -> float:
    """Wait until both targets are up, report the database, and no alert is pending.

    Return the seconds.
    """
    began_at = time.monotonic()
    expected = [("social-posts", 1.0), ("social-posts-worker", 1.0)]
    found: Any = None
    while time.monotonic() - began_at < TIMEOUT_SECONDS:
        try:
            found = [query(url, "up"), query(url, "min by (job) (database_up)"), query(url, "ALERTS")]
        except httpx2.HTTPError as error:  # Prometheus is starting.
            found = error
        if found == [expected, expected, []]:
            break
        time.sleep(0.2)
    assert found == [expected, expected, []]
    rules = httpx2.get(f"{url}/api/v1/rules").json()["data"]["groups"]
    assert rules
    assert query(url, 'count by (job) (background_task_runs_total{task="cleanup", outcome="succeeded"})') == [
        ("social-posts-worker", 1)
    ]
    return time.monotonic() - began_at


@needs_prometheus
@pytest.mark.slow
def test_the_documented_configuration_scrapes_the_systemd_units_on_the_same_machine(
    ports: MetricsPorts, tmp_path: Path, figure: Figure
) -> None:
    with prometheus(tmp_path, SAME_MACHINE, {"127.0.0.1:8000": ports.api, "127.0.0.1:8001": ports.worker}) as url:
        seconds = assert_both_jobs_are_scraped(url)

    figure(f"scraped on loopback {seconds:.1f} s after the start of Prometheus")


@needs_prometheus
@pytest.mark.slow
@pytest.mark.parametrize("name", PROXIES)
def test_the_documented_configuration_scrapes_through_the_shipped_proxy(
    ports: MetricsPorts, tmp_path: Path, figure: Figure, name: str
) -> None:
    own = ports._replace(listen=free_port())
    with (
        proxy_before(name, own.api, metrics=own) as proxy,
        prometheus(
            tmp_path, PROXY, {"api.example.com:9443": own.listen}, ca_file=proxy.folder / "tls" / "fullchain.pem"
        ) as url,
    ):
        seconds = assert_both_jobs_are_scraped(url)

    figure(f"scraped through {name} {seconds:.1f} s after the start of Prometheus")


@needs_prometheus
@pytest.mark.slow
def test_the_documented_configuration_scrapes_the_services_of_compose(
    ports: MetricsPorts, tmp_path: Path, figure: Figure
) -> None:
    with prometheus(tmp_path, COMPOSE, {"api:8000": ports.api, "worker:8001": ports.worker}) as url:
        seconds = assert_both_jobs_are_scraped(url)

    figure(f"scraped as in Compose {seconds:.1f} s after the start of Prometheus")


@pytest.fixture(scope="module", params=PROXIES)
def proxy(ports: MetricsPorts, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """Each of the proxies, with the port for Prometheus."""
    with proxy_before(request.param, ports.api, metrics=ports) as started:
        yield started


@pytest.mark.parametrize("path", ["/metrics", "/worker/metrics"])
def test_the_metrics_port_answers_allowed_addresses_with_the_token_only(
    proxy: Proxy, ports: MetricsPorts, path: str
) -> None:
    url = f"https://127.0.0.1:{ports.listen}{path}"
    with proxy.client("127.0.0.1") as allowed, proxy.client(HONEST_ADDRESS) as other:
        assert allowed.get(url, headers=HEADERS).status_code == 200
        assert allowed.get(url).status_code == 401
        assert other.get(url, headers=HEADERS).status_code == 403


@pytest.mark.parametrize("path", ["/", "/posts", "/readyz", "/worker", "/metrics/", "/worker/metrics/x"])
def test_the_metrics_port_has_no_other_path(proxy: Proxy, ports: MetricsPorts, path: str) -> None:
    with proxy.client("127.0.0.1") as client:
        assert client.get(f"https://127.0.0.1:{ports.listen}{path}", headers=HEADERS).status_code == 404


@pytest.mark.parametrize("path", ["/metrics", "/worker/metrics"])
def test_the_public_port_still_has_no_metrics(proxy: Proxy, path: str) -> None:
    with proxy.client("127.0.0.1") as client:
        assert client.get(path, headers=HEADERS).status_code == 404


def targets_of(configuration: str) -> dict[str, list[str]]:
    """Return the targets of each job."""
    return {
        job["job_name"]: [target for static in job["static_configs"] for target in static["targets"]]
        for job in yaml.safe_load(configuration)["scrape_configs"]
    }


def test_the_documented_targets_are_the_ports_of_the_systemd_units() -> None:
    api, worker = environment_of("social-posts"), environment_of("social-posts-worker")

    assert targets_of(SAME_MACHINE) == {
        "social-posts": [f"{api['HOST']}:{api['PORT']}"],
        "social-posts-worker": [f"{worker['WORKER_METRICS_HOST']}:{worker['WORKER_METRICS_PORT']}"],
    }
    assert {api["HOST"], worker["WORKER_METRICS_HOST"]} == {"127.0.0.1"}


def test_the_documented_targets_are_unpublished_ports_of_services_in_an_internal_network_of_compose() -> None:
    api, worker = (STACK["services"][name] for name in ("api", "worker"))

    assert targets_of(COMPOSE) == {
        "social-posts": [f"api:{api['environment']['PORT']}"],
        "social-posts-worker": [f"worker:{worker['environment']['WORKER_METRICS_PORT']}"],
    }
    assert worker["environment"]["WORKER_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - in its container.
    assert STACK["name"] == "social-posts"
    assert STACK["networks"]["back"]["internal"]
    for service in (api, worker):
        assert "back" in service["networks"]
        assert "ports" not in service
        assert service["env_file"] == ".env", "with METRICS_TOKEN"
