"""A server with two workers for the tests of live streams."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine

from tests.fixtures import Server, _server


@pytest.fixture(scope="package")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Server]]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield [stack.enter_context(_server(folder, {})) for _ in range(2)]


@pytest.fixture
def servers(_servers: Sequence[Server], database: Engine) -> Sequence[Server]:  # noqa: ARG001 - empty tables.
    """Two server processes on one database, with empty tables. What one writes, the other has to notice."""
    return _servers


@pytest.fixture
def url(servers: Sequence[Server]) -> str:
    """The address of the server that has the streams."""
    return servers[0].url


@pytest.fixture
def other_url(servers: Sequence[Server]) -> str:
    """The address of the other server."""
    return servers[1].url
