"""Preparation of the rounds: collect requests, and check that contestants give the same answers."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench import loads
from bench.contestants import Server, constant_body
from bench.data import Dataset
from bench.environment import BenchError
from bench.loads import next_path
from bench.scenarios import LoadName

PAGE_PATH = loads.page_path("new")
DEEP_PAGE = 1_000
POLLING_READER_COUNT = 200
# Requests of each load whose answers are compared before the rounds.
SAMPLES = 20


@dataclass(frozen=True)
class Scouted:
    """Files with the requests for one data set."""

    dataset: Dataset
    page: Path
    posts: Path
    deep: Path
    deep_page_number: int
    polling_readers: Path
    # The requests of the loads in loads.py, and answers of this application to some of them.
    requests: Mapping[LoadName, Path]
    samples: Mapping[LoadName, "list[Sample]"]

    def request(self, name: LoadName) -> tuple[str, list[str]]:
        """Return the script that generates the load, and its arguments."""
        readers, voters = self.dataset.readers_file, self.dataset.voters_file
        match name:
            case "vote" | "hot_vote":
                posts = self.dataset.posts_file if name == "vote" else self.dataset.hot_post_file
                return "vote", [str(voters), str(posts)]
            case "comment_vote":
                return "vote", [str(voters), str(self.requests[name]), "comments"]
            case "browse":
                return "browse", [str(readers), str(voters), str(self.requests[name])]
            case "poll":
                arguments = [self.polling_readers, self.page]
            case "home":
                arguments = [self.dataset.home_readers_file, self.requests[name]]
            case "post" | "deep":
                arguments = [readers, self.posts if name == "post" else self.deep]
            case _:
                arguments = [readers, self.requests.get(name, self.page)]
        return "get", [str(argument) for argument in arguments]

    def votes_among(self, name: LoadName, count: int) -> int:
        """Return the number of votes among the first requests of a load."""
        if name != "browse":
            return count
        lines = self.requests[name].read_text().splitlines()
        rounds, rest = divmod(count, len(lines))
        return sum(line.startswith("VOTE") * (rounds + (number < rest)) for number, line in enumerate(lines))


@dataclass(frozen=True)
class Sample:
    """A request, and the posts in this application's answer."""

    path: str
    token: str
    posts: Any


def scout(server: Server, dataset: Dataset, wanted: Collection[LoadName]) -> Scouted:
    """Collect the requests of these loads from `server`, which is this application on the data set."""
    token = dataset.reader_tokens[0]
    _, _, body = _get(server, PAGE_PATH, token)
    constant_body(dataset).write_bytes(body)
    deep_path, number = _walk(server, token)
    lines = {name: _requests(name, server, dataset) for name in loads.NAMES if name in wanted}
    paths = {name: [line.removeprefix("GET\t") for line in found if line[0] in "/G"] for name, found in lines.items()}
    posts = [f"/posts/{post_id}" for post_id in dataset.post_ids]
    paths["page"] = [PAGE_PATH]
    if "post" in wanted:
        paths["post"] = posts
    return Scouted(
        dataset=dataset,
        page=dataset.write("page", [PAGE_PATH]),
        posts=dataset.write("post-paths", posts),
        deep=dataset.write("deep", [deep_path]),
        deep_page_number=number,
        polling_readers=dataset.write("polling-readers", _polling_readers(server, dataset)),
        requests={name: dataset.write(name, found) for name, found in lines.items()},
        samples={name: _samples(server, dataset, name, some) for name, some in paths.items()},
    )


def _requests(name: LoadName, server: Server, dataset: Dataset) -> list[str]:
    def next_page(path: str) -> str | None:
        return next_path(_get(server, path, dataset.reader_tokens[0])[1].get("link", ""))

    requests: Mapping[LoadName, Callable[[], list[str]]] = {
        "distinct": lambda: loads.distinct(dataset, next_page, "new"),
        "top-distinct": lambda: loads.distinct(dataset, next_page, "top"),
        "authors": lambda: loads.authors(dataset),
        "search": lambda: loads.searches(dataset),
        "tag": lambda: loads.tags(dataset),
        "home": lambda: [loads.HOME_PATH],
        "comment_vote": lambda: loads.comments(dataset),
        "browse": lambda: loads.browse(dataset, next_page),
        **{each: partial(loads.threads, dataset, each) for each in loads.THREADS},
    }
    return requests[name]()


def _samples(server: Server, dataset: Dataset, name: LoadName, paths: list[str]) -> list[Sample]:
    """Return this application's answers to the first distinct requests, each of another reader."""
    if name == "home":
        pairs = [(loads.HOME_PATH, token) for token in dataset.home_tokens[:SAMPLES]]
    else:
        pairs = [*zip(list(dict.fromkeys(paths))[:SAMPLES], dataset.reader_tokens, strict=False)]
    return [Sample(path, token, json.loads(_get(server, path, token)[2])) for path, token in pairs]


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
        path = next_path(headers.get("link", ""))
        path = path and path.replace(f"limit={limit}", "limit=100")
    return deepest


def _polling_readers(server: Server, dataset: Dataset) -> list[str]:
    lines = []
    for token in dataset.reader_tokens[:POLLING_READER_COUNT]:
        _, headers, _ = _get(server, PAGE_PATH, token)
        lines.append(f"{token}\t{headers['etag']}")
    token, etag = lines[0].split("\t")
    _get(server, PAGE_PATH, token, expect=304, etag=etag)
    return lines


def disagreement(ours: Any, theirs: Any) -> str | None:
    """Return how two answers differ, or None. Texts of equal times are equal."""
    if _with_times(ours) == _with_times(theirs):
        return None
    if isinstance(ours, list) and isinstance(theirs, list):
        ids, their_ids = ([item["Post"]["id"] for item in page] for page in (ours, theirs))
        if ids != their_ids:
            return f"ids {ids} against {their_ids}"
        ours, theirs = next((a, b) for a, b in zip(ours, theirs, strict=True) if _with_times(a) != _with_times(b))
    return f"{ours} against {theirs}"


def _with_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: datetime.fromisoformat(part) if name.endswith("_at") and part else _with_times(part)
            for name, part in value.items()
        }
    return [_with_times(part) for part in value] if isinstance(value, list) else value


def require_agreement(server: Server, dataset: Dataset, scouted: Scouted, names: Collection[LoadName]) -> None:
    """Raise `BenchError` unless the contestant gives the answers of this application to requests of these loads.

    The tutorial has no order and no `voted`, so its page must have any ten posts with their votes. `constant` has one
    page.
    """
    if server.name == "tutorial":
        page = json.loads(_get(server, PAGE_PATH, dataset.reader_tokens[0])[2])
        counts = dict(
            dataset.rows(
                "SELECT post_id, votes FROM post_stats WHERE post_id = ANY (%s)",
                ([item["Post"]["id"] for item in page],),
            )
        )
        if len(page) != 10 or any(counts[item["Post"]["id"]] != item["votes"] for item in page):
            raise BenchError("tutorial returns a page with wrong votes or without ten posts")
        return
    compared: list[LoadName] = ["page"] if server.name == "constant" else ["page", *names]
    for name in compared:
        for sample in scouted.samples.get(name, ()):
            found = json.loads(_get(server, sample.path, sample.token)[2])
            if difference := disagreement(sample.posts, found):
                raise BenchError(f"{server.name} answers {sample.path} differently: {difference}")
