"""sqlmap on everything that becomes part of a query: it finds no way in."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.programs import find_program

TARGETS: dict[str, tuple[str, ...]] = {
    "search": ("/posts?search=moss&limit=3", "-p", "search"),
    "sort": ("/posts?sort=top&limit=3", "-p", "sort"),
    "cursor": ("/posts?cursor=abc&limit=3", "-p", "cursor"),
    "limit and skip": ("/posts?limit=3&skip=1", "-p", "limit,skip"),
    "owner and times": ("/posts?owner_id=1&created_after=2020-01-01", "-p", "owner_id,created_after"),
    "path": ("/posts/{id}*",),
    "login": ("/login", "--data", "username=ada@example.com&password=moss", "-p", "username,password"),
}
OPTIONS = [
    "--batch", "--level", "2", "--risk", "2", "--dbms", "PostgreSQL", "--flush-session", "--disable-coloring",
    "--ignore-code", "401,403,404,422", "--threads", "2", "--technique", "BEUS",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.needs("sqlmap")
@pytest.mark.parametrize("name", TARGETS)
def test_sqlmap_finds_no_way_in(
    server: Server, person: Person, make_post: Callable[..., int], tmp_path: Path, name: str, figure: Figure
) -> None:
    post_id, *_ = (make_post(person, title=title) for title in ("moss", "mossy", "grey"))
    path, *options = TARGETS[name]
    address = server.url + path.format(id=post_id)
    traffic = tmp_path / "traffic.txt"
    headers = ["-H", f"Authorization: Bearer {person.token}"]

    done = subprocess.run(
        [find_program("sqlmap"), "-u", address, *options, *headers, *OPTIONS, "--output-dir", tmp_path, "-t", traffic],
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip

    found = re.findall(
        ".*(?:is vulnerable|appears to be .*injectable|identified the following injection).*", done.stdout
    )
    assert not found, "\n".join(found)
    assert "all tested parameters do not appear to be injectable" in done.stdout, f"no verdict\n{done.stdout[-5000:]}"
    recorded = traffic.read_text(errors="replace")
    assert not re.search(r"^HTTP response \[#\d+\] \(5", recorded, re.MULTILINE)
    requests = len(re.findall(r"^HTTP request \[#", recorded, re.MULTILINE))
    assert requests > 20
    figure(f"S13: sqlmap on {name}: {requests:,} requests, no way in")
