"""The loads of loads.py, and that every peer gives this application's answers to their requests."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from sqlalchemy import make_url, text

from app.security import access_tokens
from bench import contestants, data, load, loads, measured, scenarios, scouting
from bench.data import Dataset
from bench.environment import WORK, BenchError
from bench.scenarios import Size
from tests.fixtures import EMPTIED

PEERS = [name for name in scenarios.WITH_SESSIONS if name != scenarios.OURS]
# Enough posts that some words are in more than `loads.COMMON` of them.
SIZE = Size(users=600, posts=5_000, votes=20_000, follows=20_000)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    WORK.mkdir(parents=True, exist_ok=True)
    _empty_tables()
    url = make_url(os.environ["DATABASE_URL"])
    data.fill(url, SIZE)
    yield Dataset("S", url, tmp_path_factory.mktemp("bench"))
    _empty_tables()


def _empty_tables() -> None:
    from app.database.engines import get_engine

    with get_engine().begin() as connection:
        for table in EMPTIED:
            connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture(scope="module")
def ours(dataset: Dataset) -> Iterator[contestants.Server]:
    with contestants.running(scenarios.OURS, dataset, workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def scouted(ours: contestants.Server, dataset: Dataset) -> Iterator[scouting.Scouted]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scouting, "SAMPLES", 60)
        yield scouting.scout(ours, dataset, [*loads.NAMES, "post"])


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, dataset: Dataset) -> Iterator[contestants.Server]:
    if request.param == "asyncpg_raw" and find_spec("asyncpg") is None:
        pytest.skip("asyncpg is not installed: requirements-bench.lock")
    try:
        contestants.install(request.param)
    except BenchError as error:
        pytest.skip(str(error))
    with contestants.running(request.param, dataset, workers=1) as server:
        yield server


def test_the_shares_of_browse_are_all_of_its_requests_and_have_reasons() -> None:
    assert sum(share.percent for share in loads.BROWSE.values()) == 100
    assert all(share.reason for share in loads.BROWSE.values())


def test_a_missing_toolchain_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BenchError, match=r"go not found: apt-get install golang-go"):
        contestants.install("go_pgx")
    with pytest.raises(BenchError, match=r"node, npm not found: install Node\.js"):
        contestants.install("fastify_pg")


def test_contestants_without_their_toolchain_are_left_out_of_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="requirements-bench.lock is not installed")
    from bench import __main__ as program

    monkeypatch.setenv("PATH", "/nonexistent")
    plan, skipped = program._plan(["distinct", "vote"], [], ("S",))
    assert set(skipped) == {"go_pgx", "fastify_pg"}
    assert {entry.contestant for entry in plan["distinct"]} == {"ours", "asyncpg_raw", "orm_sync"}
    assert not skipped.keys() & {entry.contestant for entry in plan["vote"]}


def test_a_difference_in_any_field_is_a_disagreement_but_the_spelling_of_a_time_is_not() -> None:
    item = {"Post": {"id": 1, "created_at": "2026-11-28T10:00:00Z", "owner": {"id": 2}}, "votes": 3, "voted": False}
    same = {**item, "Post": {"id": 1, "created_at": "2026-11-28T10:00:00.000+00:00", "owner": {"id": 2}}}
    assert scouting.disagreement([item], [same]) is None
    assert scouting.disagreement([item], [{**item, "voted": True}]) is not None
    assert scouting.disagreement([item], [{**item, "Post": {**item["Post"], "owner": {}}}]) is not None  # type: ignore[dict-item]
    assert scouting.disagreement([item], []) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distinct", "top-distinct", "authors", "search"])
def test_requests_of_loads_without_sharing_differ(scouted: scouting.Scouted, name: scenarios.LoadName) -> None:
    lines = scouted.requests[name].read_text().splitlines()
    assert len(lines) > 2 * scenarios.CONNECTIONS
    starts = range(0, min(len(lines), 5_000) - scenarios.CONNECTIONS, scenarios.CONNECTIONS)
    in_flight = [lines[start : start + scenarios.CONNECTIONS] for start in starts]
    # The few common words recur: a third of the searches in flight.
    shares = [len(set(some)) / len(some) for some in in_flight]
    assert min(shares) > (0.6 if name == "search" else 0.95)


@pytest.mark.slow
def test_searches_find_few_posts_many_posts_and_phrases(
    ours: contestants.Server, scouted: scouting.Scouted, dataset: Dataset
) -> None:
    lines = scouted.requests["search"].read_text().splitlines()[:9]
    counts = [
        dataset.rows(
            "SELECT count(*) FROM posts WHERE published AND search @@ search_query(%s, false)",
            (loads.words_of(path),),
        )[0][0]
        for path in lines
    ]
    assert all(1 <= count <= 3 for count in counts[0::3])
    assert all(count > loads.COMMON for count in counts[1::3])
    assert all(1 <= count <= loads.COMMON for count in counts[2::3])
    assert all('"' in loads.words_of(path) for path in lines[2::3])
    assert ours.get(lines[0], {"Authorization": f"Bearer {dataset.reader_tokens[0]}"})[0] == 200


@pytest.mark.slow
def test_browse_has_its_shares_and_popular_posts_come_often(scouted: scouting.Scouted) -> None:
    lines = scouted.requests["browse"].read_text().splitlines()
    assert len(lines) == loads.BROWSE_REQUESTS
    votes = scouted.votes_among("browse", len(lines))
    assert votes == sum(line.startswith("VOTE\t") for line in lines) == len(lines) * loads.BROWSE["vote"].percent // 100
    assert scouted.votes_among("browse", 2 * len(lines) + 100) == 2 * votes + scouted.votes_among("browse", 100)
    assert lines.count(f"GET\t{scouting.PAGE_PATH}") == len(lines) * loads.BROWSE["front new"].percent // 100
    posts = Counter(line for line in lines if line.startswith("GET\t/posts/"))
    assert posts.total() == len(lines) * loads.BROWSE["post"].percent // 100
    (_, most), *_ = posts.most_common(1)
    assert most > 20 * posts.total() / len(posts) / 5  # Zipf: the first of 5,000 has far more than an equal share.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*loads.NAMES, "post", "page"])
def test_every_peer_answers_as_this_application(
    peer: contestants.Server, dataset: Dataset, scouted: scouting.Scouted, name: scenarios.LoadName
) -> None:
    if name in (*loads.THREADS, "comment_vote") or (name == "home" and peer.name != "asyncpg_raw"):
        pytest.skip("this peer has no such pages")
    assert len(scouted.samples[name]) == (1 if name == "page" else 60)
    scouting.require_agreement(peer, dataset, scouted, [name])


@pytest.mark.slow
def test_every_peer_shows_the_callers_own_votes_and_address(
    ours: contestants.Server, peer: contestants.Server, dataset: Dataset
) -> None:
    rows = dataset.rows(
        "SELECT sessions.id, votes.post_id, mine.id FROM sessions JOIN votes USING (user_id)"
        " JOIN LATERAL (SELECT id FROM posts WHERE owner_id = sessions.user_id AND published LIMIT 1) AS mine ON true"
        " WHERE user_agent = 'bench reader' ORDER BY sessions.id LIMIT 1"
    )
    ((session_id, voted_id, own_id),) = rows
    token = next(token for token in dataset.reader_tokens if access_tokens.verify(token).session_id == session_id)
    headers = {"Authorization": f"Bearer {token}"}
    for post_id, is_shown in ((voted_id, lambda item: item["voted"]), (own_id, _has_real_address)):
        status, _, body = peer.get(f"/posts/{post_id}", headers)
        assert status == 200
        assert is_shown(json.loads(body))
        assert scouting.disagreement(json.loads(ours.get(f"/posts/{post_id}", headers)[2]), json.loads(body)) is None


def _has_real_address(item: dict[str, dict[str, dict[str, str]]]) -> bool:
    return "noreply" not in item["Post"]["owner"]["email"]


@pytest.mark.slow
def test_votes_for_comments_are_counted_and_removed_again(
    ours: contestants.Server, dataset: Dataset, scouted: scouting.Scouted
) -> None:
    script, arguments = scouted.request("comment_vote")
    assert (script, arguments[2]) == ("vote", "comments")
    process = load.start_wrk(ours, script, arguments, connections=4, seconds=1)
    counted = measured.parse_wrk(load.finish(process, 1))
    assert counted.problem is None
    assert counted.requests <= dataset.count_votes_of_runs("comment_votes") <= counted.requests + 4
    assert dataset.miscounted_comments() == dataset.count_votes_of_runs("votes") == 0
    dataset.forget_votes_of_runs()
    assert dataset.count_votes_of_runs("comment_votes") == 0


@pytest.mark.slow
def test_every_peer_votes_as_this_application(
    ours: contestants.Server, peer: contestants.Server, dataset: Dataset
) -> None:
    post_id, token = dataset.post_ids[0], dataset.voters_file.read_text().splitlines()[0]
    found = {}
    for server in (ours, peer):
        found[server.name] = [
            _vote(server, token, post_id, 1),
            _vote(server, token, post_id, 1),
            _vote(server, token, post_id, 0),
            _vote(server, token, post_id, 0),
            _vote(server, token, 2**40, 1),
        ]
        assert dataset.count_votes_of_runs("votes") == 0
        assert dataset.miscounted_posts() == 0
    statuses = [status for status, _ in found[peer.name]]
    assert statuses == [201, 409, 201, 404, 404]
    assert statuses == [status for status, _ in found[ours.name]]
    assert [found[peer.name][place] for place in (0, 2)] == [found[ours.name][place] for place in (0, 2)]


@pytest.mark.slow
def test_every_peer_refuses_callers_without_a_valid_session(peer: contestants.Server, dataset: Dataset) -> None:
    token, other = dataset.reader_tokens[1:3]
    forged = f"{token.rpartition('.')[0]}.{other.rpartition('.')[2]}"
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {forged}"}):
        assert peer.get("/posts?limit=10", headers)[0] == 401
    valid = {"Authorization": f"Bearer {other}"}
    assert peer.get("/posts?limit=10", valid)[0] == 200
    session_id = access_tokens.verify(other).session_id
    try:
        dataset.execute(f"UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE id = {session_id}")
        for path in ("/posts?limit=10", f"/posts/{dataset.post_ids[0]}"):
            assert peer.get(path, valid)[0] == 401
        assert _vote(peer, other, dataset.post_ids[0], 1)[0] == 401
    finally:
        dataset.execute(f"UPDATE sessions SET expires_at = now() + interval '1 year' WHERE id = {session_id}")


@pytest.mark.slow
def test_every_peer_refuses_forged_cursors(
    peer: contestants.Server, dataset: Dataset, scouted: scouting.Scouted
) -> None:
    paths = [path for path in scouted.requests["distinct"].read_text().splitlines() if "cursor=" in path]
    cursor = paths[0].partition("cursor=")[2]
    changed = f"{'B' if cursor[0] == 'A' else 'A'}{cursor[1:]}"
    headers = {"Authorization": f"Bearer {dataset.reader_tokens[0]}"}
    assert peer.get(paths[0].replace(cursor, changed), headers)[0] == 422
    assert peer.get(f"{paths[0]}&sort=top", headers)[0] == 422


def _vote(server: contestants.Server, token: str, post_id: int, direction: int) -> tuple[int, object]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"post_id": post_id, "vote_dir": direction}).encode()
    status, _, answer = server.request("POST", "/vote", headers, body)
    return status, json.loads(answer)
