"""One real server for all hostile tests of this package."""

from collections.abc import Iterator

import pytest

from tests.fixtures import Server, _server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _server(tmp_path_factory.mktemp("server"), {"RATE_LIMITS_ENABLED": "false"}) as server:
        yield server
