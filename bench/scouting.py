"""Preparation of the rounds: collect pages, cursors and ETags, and check that contestants agree on a page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from bench.contestants import Server, constant_body
from bench.data import Dataset
from bench.environment import BenchError
from bench.scenarios import LoadName

PAGE_PATH = "/posts?limit=10"
DEEP_PAGE = 1_000
POLLING_READER_COUNT = 200


@dataclass(frozen=True)
class Scouted:
    """Files with the requests for one data set."""

    dataset: Dataset
    page: Path
    posts: Path
    deep: Path
    deep_page_number: int
    polling_readers: Path

    def request(self, name: LoadName) -> tuple[str, list[str]]:
        """Return the script that generates the load, and its arguments."""
        readers, voters = self.dataset.readers_file, self.dataset.voters_file
        match name:
            case "vote":
                return "vote", [str(voters), str(self.dataset.posts_file)]
            case "hot_vote":
                return "vote", [str(voters), str(self.dataset.hot_post_file)]
            case "post":
                return "get", [str(readers), str(self.posts)]
            case "deep":
                return "get", [str(readers), str(self.deep)]
            case "poll":
                return "get", [str(self.polling_readers), str(self.page)]
            case "page" | "page_calm" | "page_during_logins":
                return "get", [str(readers), str(self.page)]


def scout(server: Server, dataset: Dataset) -> Scouted:
    """Collect the requests from `server`, which is this application on the data set."""
    token = dataset.reader_tokens[0]
    _, _, body = _get(server, PAGE_PATH, token)
    constant_body(dataset).write_bytes(body)
    deep_path, number = _walk(server, token)
    return Scouted(
        dataset=dataset,
        page=dataset.write("page", [PAGE_PATH]),
        posts=dataset.write("post-paths", [f"/posts/{post_id}" for post_id in dataset.post_ids]),
        deep=dataset.write("deep", [deep_path]),
        deep_page_number=number,
        polling_readers=dataset.write("polling-readers", _polling_readers(server, dataset)),
    )


def _get(
    server: Server, path: str, token: str, *, expect: int = 200, etag: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    headers = {"Authorization": f"Bearer {token}"}
    if etag is not None:
        headers["If-None-Match"] = etag
    status, answered, body = server.get(path, headers)
    if status != expect:
        raise BenchError(f"{server.name} answers {status} to GET {path.partition('?')[0]}: {body[:200]!r}")
    return status, answered, body


def _walk(server: Server, token: str) -> tuple[str, int]:
    """Return the path and number of page 1 000 of ten posts, or of the last full page of a smaller data set."""
    path: str | None = "/posts?limit=100"
    pages = 0.0
    deepest = (PAGE_PATH, 1)
    while path is not None and pages < DEEP_PAGE:
        limit = 100 if pages + 10 <= DEEP_PAGE - 1 else 10
        _, headers, body = _get(server, path.replace("limit=100", f"limit={limit}"), token)
        count = len(json.loads(body))
        if count == limit:  # A page with few posts costs less than a full one.
            deepest = (path.replace("limit=100", "limit=10"), int(pages) + 1)
        pages += count / 10
        path = _next_path(headers.get("link", ""))
        path = path and path.replace(f"limit={limit}", "limit=100")
    return deepest


def _next_path(link: str) -> str | None:
    for part in link.split(", "):
        address, _, relation = part.partition(">; ")
        if relation == 'rel="next"':
            return urljoin("/posts", address.removeprefix("<"))
    return None


def _polling_readers(server: Server, dataset: Dataset) -> list[str]:
    lines = []
    for token in dataset.reader_tokens[:POLLING_READER_COUNT]:
        _, headers, _ = _get(server, PAGE_PATH, token)
        lines.append(f"{token}\t{headers['etag']}")
    token, etag = lines[0].split("\t")
    _get(server, PAGE_PATH, token, expect=304, etag=etag)
    return lines


def disagreement(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str | None:
    """Return how two pages differ in the fields that every contestant has, or None."""

    def shown(page: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = ("id", "title", "content", "published", "owner_id")
        return [
            {name: item["Post"][name] for name in names}
            | {"owner": item["Post"]["owner"]["id"], "votes": item["votes"], "voted": item["voted"]}
            for item in page
        ]

    if shown(ours) == shown(theirs):
        return None
    return f"ids {[item['Post']['id'] for item in ours]} against {[item['Post']['id'] for item in theirs]}"


def require_agreement(server: Server, dataset: Dataset) -> None:
    """Raise `BenchError` unless the contestant returns the same page as this application.

    The tutorial has no order and no `voted`, so its page must have any ten posts with their votes.
    """
    token = dataset.reader_tokens[0]
    page = json.loads(_get(server, PAGE_PATH, token)[2])
    if server.name == "tutorial":
        counts = dict(
            dataset.rows(
                "SELECT post_id, votes FROM post_stats WHERE post_id = ANY (%s)",
                ([item["Post"]["id"] for item in page],),
            )
        )
        if len(page) != 10 or any(counts[item["Post"]["id"]] != item["votes"] for item in page):
            raise BenchError("tutorial returns a page with wrong votes or without ten posts")
        return
    if difference := disagreement(json.loads(constant_body(dataset).read_bytes()), page):
        raise BenchError(f"{server.name} returns another page than this application: {difference}")
