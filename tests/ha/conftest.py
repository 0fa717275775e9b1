"""Three nodes of Patroni on loopback, with one etcd, and two servers on their PostgreSQL."""

import copy
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from app.dev import postgres
from tests.chaos.conftest import Postgres
from tests.conftest import ROOT
from tests.fixtures import Person, Server, _server, free_port
from tests.programs import find_program, missing
from tests.scaling.conftest import sign_in

CLIENT_COUNT = 16
# The configuration that docs/scaling.md gives.
(BLOCK,) = re.findall(r"(?ms)^```yaml\n(scope:.*?)^```", (ROOT / "docs" / "scaling.md").read_text())
DOCUMENTED: dict[str, Any] = yaml.safe_load(BLOCK)
# Patroni replaces a silent leader after this time.
TTL_SECONDS: int = DOCUMENTED["bootstrap"]["dcs"]["ttl"]
WHOLE_WITHIN_SECONDS = 120  # A returning node may have to be rewound, or copied from the leader.


class Node(Postgres):
    """A PostgreSQL and the Patroni that manages it."""

    def __init__(self, server: postgres._Server, etcd_port: int, password: str) -> None:
        super().__init__(server.folder)
        self.name = server.folder.name
        self.port = int(self._options["port"])
        self.url = URL.create("postgresql+psycopg2", "postgres", password, "127.0.0.1", self.port, postgres.DATABASE)
        self.api = f"http://127.0.0.1:{(api_port := free_port())}"
        self.patroni: subprocess.Popen[bytes] | None = None
        self._server = server
        self._config = server.folder / "patroni.json"  # YAML includes JSON.
        self._config.write_text(json.dumps(_config(server, self.port, api_port, etcd_port, password)))
        self._config.chmod(0o600)
        if server.account:
            for path in (server.folder, self._config):
                os.chown(path, server.account["user"], server.account["group"])

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        with (self._folder / "patroni.log").open("ab") as log:
            self.patroni = subprocess.Popen(
                [*_python(self._server.account), "-m", "patroni", self._config],
                cwd="/",
                env=postgres._ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal_patroni(self, number: signal.Signals) -> None:
        assert self.patroni is not None
        self.patroni.send_signal(number)
        if number == signal.SIGKILL:
            self.patroni.wait()

    def close(self) -> None:
        """End Patroni and PostgreSQL, also frozen ones."""
        if self.patroni is None:
            return
        with suppress(FileNotFoundError):
            self.signal(signal.SIGCONT)
        self.patroni.send_signal(signal.SIGCONT)
        self.patroni.terminate()
        try:
            self.patroni.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.signal_patroni(signal.SIGKILL)
        with suppress(FileNotFoundError):
            # Without Patroni, the process id in the file may be another's by now.
            if Path(f"/proc/{self._postmaster}/cwd").resolve() == self._folder.resolve() / "data":
                self.signal(signal.SIGKILL)


def _config(server: postgres._Server, port: int, api_port: int, etcd_port: int, password: str) -> dict[str, Any]:
    """The documented configuration, with the addresses, paths and passwords of a node."""
    config = copy.deepcopy(DOCUMENTED)
    config["name"] = server.folder.name
    config["restapi"] = dict.fromkeys(config["restapi"], f"127.0.0.1:{api_port}")
    config["etcd3"]["hosts"] = f"127.0.0.1:{etcd_port}"
    if server.version >= 17:  # As the embedded server has it.
        config["bootstrap"]["initdb"] += [{"locale-provider": "builtin"}, {"builtin-locale": "C.UTF-8"}]
    config["postgresql"] |= {
        "listen": f"127.0.0.1:{port}",
        "connect_address": f"127.0.0.1:{port}",
        "data_dir": str(server.data),
        "bin_dir": str(server.binaries),
        "pgpass": str(server.folder / "pgpass"),
        "parameters": {"unix_socket_directories": str(server.folder)},
        "pg_hba": [line.replace("10.0.0.0/24", "127.0.0.1/32") for line in config["postgresql"]["pg_hba"]],
    }
    for role in config["postgresql"]["authentication"].values():
        role["password"] = password
    config["watchdog"]["mode"] = "off"  # It would reset the machine.
    return config


class Cluster:
    """The nodes, in the order of the URLs."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    def members(self) -> dict[str, dict[str, Any]]:
        """Return what Patroni says of each member, by its name."""
        for node in self.nodes:
            with suppress(httpx2.TransportError):
                found = httpx2.get(f"{node.api}/cluster", timeout=2).json()
                return {member["name"]: member for member in found["members"]}
        return {}

    def leader(self) -> Node:
        roles = {name: member["role"] for name, member in self.members().items()}
        (leader,) = [node for node in self.nodes if roles.get(node.name) == "leader"]
        return leader

    def wait_until_whole(self) -> None:
        """Wait until there are a leader, a synchronous standby and a replica, and both stream from the leader."""
        deadline = time.monotonic() + WHOLE_WITHIN_SECONDS
        members: dict[str, dict[str, Any]] = {}
        while sorted((one["role"], one["state"]) for one in members.values()) != [
            ("leader", "running"),
            ("replica", "streaming"),
            ("sync_standby", "streaming"),
        ]:
            assert time.monotonic() < deadline, f"the nodes did not recover: {members}"
            time.sleep(0.5)
            members = self.members()

    def switch_over(self) -> None:
        """Let a standby become the leader, in order."""
        leader = self.leader()
        response = httpx2.post(f"{leader.api}/switchover", json={"leader": leader.name}, timeout=60)
        assert response.status_code == 200, response.text

    def run(self, module: str, *arguments: str) -> None:
        """Run a program of ours on the database. It has to succeed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": self.dsn("read-write")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def dsn(self, target: str) -> str:
        """The URL of all nodes, as libpq takes it."""
        password = self.nodes[0].url.password
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres:{password}@{hosts}/{postgres.DATABASE}?target_session_attrs={target}"


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A migrated cluster of three nodes."""
    etcd = find_program("etcd")
    if importlib.util.find_spec("patroni") is None:
        missing("patroni", "patroni is not installed: make test-ha installs it")
    folder = Path(tempfile.mkdtemp(prefix="ha-"))
    folder.chmod(0o711)  # The account of PostgreSQL may enter it.
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        etcd_port = stack.enter_context(_etcd(etcd, folder))
        password = secrets.token_urlsafe(24)
        nodes: list[Node] = []
        for number in range(1, 4):
            server = postgres._settle(folder / f"node{number}", nodes[0]._server.binaries if nodes else None)
            nodes.append(Node(server, etcd_port, password))
            stack.callback(nodes[-1].close)
        for node in nodes:
            node.start()
        made = Cluster(nodes)
        try:
            made.wait_until_whole()
            _migrate(made)
            yield made
        finally:
            for node in nodes:
                sys.stdout.write(f"{node.name}:\n{(node._folder / 'patroni.log').read_text()[-5000:]}\n")


@contextmanager
def _etcd(program: str, folder: Path) -> Iterator[int]:
    """The port of an etcd."""
    port = free_port()
    url, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    ours = ("--data-dir", folder / "etcd", "--listen-client-urls", url, "--advertise-client-urls", url)
    theirs = ("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers)
    with (folder / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *ours, *theirs, "--initial-cluster", f"default={peers}"], stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def _python(account: postgres._Account) -> list[str]:
    """The command of our Python, as PostgreSQL's account.

    As root, the interpreter may be in a folder that only root can enter. So the account may enter every folder.
    """
    if not account:
        return [sys.executable]
    user = (f"--reuid={account['user']}", f"--regid={account['group']}", "--clear-groups")
    capability = "-all,+dac_read_search"
    return [find_program("setpriv"), *user, f"--inh-caps={capability}", f"--ambient-caps={capability}", sys.executable]


def _migrate(cluster: Cluster) -> None:
    url = cluster.leader().url.set(database="postgres")
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {postgres.DATABASE}"))
    cluster.run("alembic", "upgrade", "head")


@pytest.fixture(scope="package")
def servers(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers of two workers. They are the same processes in all tests."""
    settings = {
        "DATABASE_URL": cluster.dsn("read-write"),
        "DATABASE_REPLICA_URL": cluster.dsn("prefer-standby"),
        "WORKERS": "2",
        "RATE_LIMITS_ENABLED": "false",
    }
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield [stack.enter_context(_server(folder, settings)) for _ in range(2)]


@pytest.fixture(scope="package")
def people(cluster: Cluster) -> list[Person]:
    """Signed-in users, one for each client."""
    with cluster.leader().connect() as connection:
        return [
            sign_in(
                connection,
                connection.execute(
                    text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:e, :e, 'x') RETURNING id"),
                    {"e": f"client{number}@example.com"},
                ).scalar_one(),
            )
            for number in range(CLIENT_COUNT)
        ]
