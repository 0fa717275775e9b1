"""The Compose file, without running it: CI starts the real stack."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from app.config import Settings

ROOT = Path(__file__).resolve().parents[2]
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = STACK["services"]
OURS = ["migrate", "api", "worker"]
LASTING = ["postgres", "api", "worker", "nginx"]
REQUIRED = {"SECRET_KEY": "0123456789abcdef" * 3, "DATABASE_PASSWORD": "p/@:%$ word"}


def interpolated(text: str, variables: dict[str, str]) -> str:
    """Return what Compose makes of `${NAME:-default}` and `${NAME:?message}`."""

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == "?":
            raise KeyError(f"{name}: {rest}")
        return rest

    return re.sub(r"\$\{([A-Z_]+):([-?])([^}]*)\}", replace, text)


def settings(service: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return what the service reads when `.env` holds the variables."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert SERVICES[service]["env_file"] == ([".env", ".env.owner"] if service == "migrate" else ".env")
    merged = variables | {
        name: interpolated(value, variables) for name, value in SERVICES[service]["environment"].items()
    }
    for name, value in merged.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


@pytest.mark.parametrize("service", OURS)
def test_a_service_finds_its_database_and_nothing_in_env_leads_elsewhere(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settings(service, REQUIRED | {"DATABASE_URL": "postgres://elsewhere/x"}, monkeypatch)
    assert found.environment == "production"
    assert found.database is not None
    assert (found.database.host, found.database.port) == ("postgres", 5432)
    role = (found.database.username, found.database.password)
    # The owner's password is not in .env. The command passes it on.
    owner = ("social_posts_owner", None)
    assert role == (owner if service == "migrate" else ("social_posts", REQUIRED["DATABASE_PASSWORD"]))


def test_other_settings_in_env_reach_the_api_but_not_the_address_it_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HOST": "127.0.0.1", "PORT": "9000", "WORKERS": "3", "CORS_ORIGINS": "https://shop.example"}
    found = settings("api", REQUIRED | variables, monkeypatch)
    assert (found.host, found.port) == ("0.0.0.0", 8000)  # noqa: S104
    assert (found.workers, found.cors_origins) == (3, ["https://shop.example"])


def test_the_database_is_made_under_the_name_that_the_services_ask_for() -> None:
    postgres, roles, api = (SERVICES[name]["environment"] for name in ("postgres", "roles", "api"))
    assert postgres["POSTGRES_DB"] == roles["PGDATABASE"] == api["DATABASE_NAME"]
    assert postgres["POSTGRES_USER"] == roles["PGUSER"]
    assert roles["APP_PASSWORD"] == api["DATABASE_PASSWORD"]


def test_only_what_needs_more_than_rows_gets_the_passwords_for_it() -> None:
    given = {name for name, service in SERVICES.items() if ".env.owner" in service.get("env_file", [])}
    assert given == {"postgres", "roles", "migrate"}
    assert SERVICES["roles"]["volumes"] == ["./deploy/postgres/roles.sql:/roles.sql:ro"]
    assert ".env.owner" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("missing", REQUIRED)
def test_no_secret_has_a_default(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match=missing):
        settings("api", REQUIRED | {missing: ""}, monkeypatch)


@pytest.mark.parametrize("service", OURS)
def test_a_service_sets_only_what_the_settings_know(service: str) -> None:
    assert {name.lower() for name in SERVICES[service]["environment"]} <= {*Settings.model_fields, "tmpdir"}


def test_migrations_are_a_step_of_their_own_before_the_api() -> None:
    assert SERVICES["migrate"]["command"][-1].endswith(" exec alembic upgrade head")
    assert SERVICES["roles"]["restart"] == SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["roles"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["depends_on"] == {"roles": {"condition": "service_completed_successfully"}}
    assert SERVICES["api"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert "command" not in SERVICES["api"], "the image's own command serves"


def test_one_worker_does_what_the_api_leaves_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api, worker = (settings(name, REQUIRED, monkeypatch) for name in ("api", "worker"))
    assert (api.mail_enabled, api.cleanup_interval_minutes) == (False, 0)
    assert (worker.mail_enabled, worker.cleanup_interval_minutes) == (True, 60)
    assert SERVICES["worker"]["command"] == ["python", "-m", "app", "worker"]
    assert SERVICES["worker"]["depends_on"] == SERVICES["api"]["depends_on"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_write_nothing_and_gain_nothing(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]
    assert all("noexec" in mount and "size=" in mount for mount in SERVICES[service]["tmpfs"])


@pytest.mark.parametrize("service", OURS)
def test_ours_need_no_right_at_all(service: str) -> None:
    assert not {"cap_add", "user"} & set(SERVICES[service]), "the image says who it runs as"


def test_pictures_are_shared_by_what_serves_and_deletes_them() -> None:
    folder = "media:/var/lib/social-posts/media"
    assert {name for name in OURS if SERVICES[name].get("volumes") == [folder]} == {"api", "worker"}
    assert f"{folder}:ro" in SERVICES["nginx"]["volumes"]
    environment = SERVICES["api"]["environment"]
    assert environment["MEDIA_ROOT"] == environment["TMPDIR"] == folder.partition(":")[2]
    assert f"--mode 0755 {environment['MEDIA_ROOT']}" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_bounded_and_so_is_its_log(service: str) -> None:
    assert {"mem_limit", "cpus", "pids_limit"} <= set(SERVICES[service])
    assert set(SERVICES[service]["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("service", LASTING)
def test_a_service_that_ends_is_started_again_and_has_time_to_end(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["stop_grace_period"]
    assert "healthcheck" in SERVICES[service]


def test_the_api_trusts_the_private_networks_that_only_these_containers_share() -> None:
    assert {name for name, service in SERVICES.items() if "front" in service["networks"]} == {"api", "nginx"}
    trusted = [ip_network(network) for network in SERVICES["api"]["environment"]["TRUSTED_PROXIES"].split(",")]
    assert all(network.is_private for network in trusted)
    # The pools that Docker takes its networks from.
    for pool in ("172.17.0.0/16", "172.31.0.0/16", "192.168.0.0/16", "10.0.0.0/8", "fd00::/8"):
        subnet = ip_network(pool)
        assert any({subnet[0] in network, subnet[-1] in network} == {True} for network in trusted)
    assert "ports" not in SERVICES["api"]


def test_no_network_has_a_fixed_subnet_which_may_be_taken_on_the_machine() -> None:
    assert not [name for name, network in STACK["networks"].items() if network and "ipam" in network]
    assert not [name for name, service in SERVICES.items() if "ipv4_address" in str(service["networks"])]
    assert "resolve" in (ROOT / "deploy/nginx/upstream.compose.conf").read_text()


def test_neither_the_api_nor_the_database_reaches_the_internet() -> None:
    inside = {name for name, network in STACK["networks"].items() if network and network.get("internal")}
    assert set(SERVICES["api"]["networks"]) <= inside
    assert set(SERVICES["postgres"]["networks"]) <= inside


def test_nginx_runs_the_tested_files_as_an_unprivileged_user() -> None:
    nginx = SERVICES["nginx"]
    assert nginx["user"] == "101:101"
    for volume in {*nginx["volumes"]} - {"media:/var/lib/social-posts/media:ro"}:
        source, target, mode = interpolated(volume, {}).split(":")
        assert (ROOT / source).exists(), source
        assert target.startswith("/etc/nginx/")
        assert mode == "ro"
    upstream, local = ((ROOT / f"deploy/nginx/{name}.conf").read_text() for name in ("upstream.compose", "upstream"))
    for wanted in ("upstream api {", "keepalive 64;", "keepalive_timeout 60s;"):
        assert wanted in upstream
        assert wanted in local
    assert "server api:8000 resolve max_fails=0;" in upstream


def test_port_80_comes_with_a_second_file_that_adds_to_nginx_only() -> None:
    added = yaml.safe_load((ROOT / "docker-compose.tls.yml").read_text())["services"]
    assert [interpolated(port, {"HOST": "0.0.0.0"}) for port in added["nginx"].pop("ports")] == ["0.0.0.0:80:80"]  # noqa: S104
    redirect, challenges = (interpolated(volume, {}) for volume in added["nginx"].pop("volumes"))
    assert redirect == "./deploy/nginx/http.conf:/etc/nginx/http.conf:ro"
    assert challenges == "/var/www/acme:/var/www/acme:ro"
    assert "root /var/www/acme;" in (ROOT / "deploy/nginx/http.conf").read_text()
    assert added == {"nginx": {}}


def test_the_api_is_healthy_only_when_it_is_ready() -> None:
    assert "/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]
    assert SERVICES["nginx"]["depends_on"] == {"api": {"condition": "service_healthy"}}


def test_data_outlive_the_container() -> None:
    # PostgreSQL 18's image moved its volume up from /var/lib/postgresql/data.
    assert SERVICES["postgres"]["image"].startswith("postgres:18-")
    assert SERVICES["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]
    assert "postgres-data" in STACK["volumes"]


def test_only_nginx_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert {name: [interpolated(port, {}) for port in ports] for name, ports in published.items()} == {
        "nginx": ["127.0.0.1:8000:8080"]
    }
