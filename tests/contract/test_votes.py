"""`/vote` and `/posts/{id}/vote`: one user, one post, at most one vote, and counts that equal the rows."""

import json
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

COUNTS = "SELECT post_id, votes FROM post_stats ORDER BY post_id"
VOTES = "SELECT post_id, user_id FROM votes ORDER BY post_id, user_id"
IMPOSSIBLE_IDS = [0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400]


@pytest.fixture
def post_id(other: Person, make_post: Callable[..., int]) -> int:
    return make_post(other)


@pytest.mark.parametrize("path", ["/vote", "/vote/", "/votes", "/votes/", "/v1/vote", "/v1/votes/"])
@pytest.mark.parametrize("key", ["vote_dir", "dir"])
def test_a_vote_is_cast_and_taken_back(
    client: TestClient, person: Person, post_id: int, rows: Rows, path: str, key: str
) -> None:
    cast = client.post(path, json={"post_id": post_id, key: 1}, headers=person.headers)

    assert (cast.status_code, cast.json()) == (201, {"message": "successfully added vote", "votes": 1})
    assert rows(VOTES) == [(post_id, person.id)]
    assert rows(COUNTS) == [(post_id, 1)]

    taken_back = client.post(path, json={"post_id": post_id, key: 0}, headers=person.headers)

    assert (taken_back.status_code, taken_back.json()) == (201, {"message": "successfully deleted vote", "votes": 0})
    assert rows(VOTES) == []
    assert rows(COUNTS) == [(post_id, 0)]


def test_second_vote_is_refused_and_changes_nothing(
    client: TestClient, person: Person, post_id: int, rows: Rows
) -> None:
    ballot = {"post_id": post_id, "vote_dir": 1}
    client.post("/vote", json=ballot, headers=person.headers)
    before = rows("SELECT votes::text FROM votes")

    response = client.post("/vote", json=ballot, headers=person.headers)

    assert_refused(response, 409, "already_voted", f"user {person.id} has already voted on post {post_id}")
    assert rows("SELECT votes::text FROM votes") == before
    assert rows(COUNTS) == [(post_id, 1)]


def test_taking_back_a_missing_vote_is_refused_and_changes_nothing(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    client.post("/vote", json={"post_id": post_id, "vote_dir": 1}, headers=other.headers)

    response = client.post("/vote", json={"post_id": post_id, "vote_dir": 0}, headers=person.headers)

    assert_refused(response, 404, "vote_not_found", "Vote does not exist")
    assert rows(VOTES) == [(post_id, other.id)]
    assert rows(COUNTS) == [(post_id, 1)]


@pytest.mark.parametrize("missing", IMPOSSIBLE_IDS)
@pytest.mark.parametrize("direction", [0, 1])
def test_a_post_that_cannot_exist_is_not_found(
    client: TestClient, person: Person, rows: Rows, missing: int, direction: int
) -> None:
    response = client.post("/vote", json={"post_id": missing, "vote_dir": direction}, headers=person.headers)

    shown = missing if -(2**63) <= missing < 2**63 else "out of range"
    assert_refused(response, 404, "post_not_found", f"Post with id: {shown} does not exist")
    method = "PUT" if direction else "DELETE"
    assert_refused(client.request(method, f"/posts/{missing}/vote", headers=person.headers), 404, "post_not_found")
    assert rows(VOTES) == []


@pytest.mark.parametrize(
    "direction", [2, -1, 0.5, "up", "2", "", None, [1], {"dir": 1}, float("nan"), float("inf"), 10**400]
)
def test_a_direction_that_is_neither_is_refused(
    client: TestClient, person: Person, post_id: int, rows: Rows, direction: object
) -> None:
    body = json.dumps({"post_id": post_id, "vote_dir": direction})

    response = client.post("/vote", content=body, headers=person.headers | {"Content-Type": "application/json"})

    assert_refused(response, 422, "validation_failed")
    assert all(set(problem) == {"type", "loc", "msg"} for problem in response.json()["detail"])
    assert rows(VOTES) == []


@pytest.mark.parametrize("direction", [1, "1", 1.0, True])
def test_a_direction_that_the_tutorial_accepts_is_accepted(
    client: TestClient, person: Person, post_id: int, rows: Rows, direction: object
) -> None:
    response = client.post("/vote", json={"post_id": post_id, "vote_dir": direction}, headers=person.headers)

    assert response.json()["message"] == "successfully added vote"
    assert rows(VOTES) == [(post_id, person.id)]


@pytest.mark.parametrize(
    "body", [{}, {"post_id": 1}, {"vote_dir": 1}, [], None, {"post_id": "x", "vote_dir": 1},
             {"post_id": 1.5, "vote_dir": 1}, {"post_id": None, "vote_dir": 1},
             {"post_id": float("nan"), "vote_dir": 1},
             {"post_id": float("inf"), "vote_dir": 1}, {"post_id": "\0", "vote_dir": 1},
             {"post_id": [1], "vote_dir": 1}]
)  # fmt: skip
def test_a_malformed_ballot_is_refused(client: TestClient, person: Person, rows: Rows, body: object) -> None:
    headers = person.headers | {"Content-Type": "application/json"}

    assert_refused(client.post("/vote", content=json.dumps(body), headers=headers), 422, "validation_failed")
    assert rows(VOTES) == []


def test_users_vote_for_themselves_only(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    ballot = {"post_id": post_id, "vote_dir": 1, "user_id": other.id, "created_at": "2000-01-01T00:00:00Z", "votes": 9}

    assert client.post("/vote", json=ballot, headers=person.headers).json()["votes"] == 1

    assert rows(VOTES) == [(post_id, person.id)]
    assert rows("SELECT created_at > now() - interval '1 minute' FROM votes") == [(True,)]


def test_users_may_vote_for_their_own_posts(client: TestClient, other: Person, post_id: int, rows: Rows) -> None:
    assert client.post("/vote", json={"post_id": post_id, "vote_dir": 1}, headers=other.headers).status_code == 201
    assert rows(VOTES) == [(post_id, other.id)]


def test_setting_and_removing_a_vote_can_be_repeated(
    client: TestClient, person: Person, other: Person, post_id: int, rows: Rows
) -> None:
    client.put(f"/posts/{post_id}/vote", headers=other.headers)
    there = {"post_id": post_id, "votes": 2, "voted": True}
    gone = {"post_id": post_id, "votes": 1, "voted": False}

    for _ in range(2):
        response = client.put(f"/posts/{post_id}/vote", headers=person.headers)
        assert (response.status_code, response.json()) == (200, there)
        assert rows(VOTES) == sorted([(post_id, person.id), (post_id, other.id)])
    for _ in range(2):
        response = client.delete(f"/posts/{post_id}/vote/", headers=person.headers)
        assert (response.status_code, response.json()) == (200, gone)
        assert rows(VOTES) == [(post_id, other.id)]
    assert rows(COUNTS) == [(post_id, 1)]


def test_a_vote_shows_in_the_next_answer(client: TestClient, person: Person, other: Person, post_id: int) -> None:
    for voted in (True, False):
        client.request("PUT" if voted else "DELETE", f"/posts/{post_id}/vote", headers=person.headers)
        (mine,) = client.get("/posts", headers=person.headers).json()
        (theirs,) = client.get("/posts", headers=other.headers).json()
        assert (mine["votes"], mine["voted"]) == (int(voted), voted)
        assert (theirs["votes"], theirs["voted"]) == (int(voted), False)


@pytest.mark.parametrize("vote_dir", [0, 1])
@pytest.mark.parametrize("post_id", [True, False])
def test_true_is_refused_as_an_id(client: TestClient, person: Person, rows: Rows, post_id: bool, vote_dir: int) -> None:
    rows("INSERT INTO posts (id, title, content, owner_id) VALUES (1, 't', 'c', :id) RETURNING 1", id=person.id)

    response = client.post("/vote", json={"post_id": post_id, "vote_dir": vote_dir}, headers=person.headers)

    assert_refused(response, 422, "validation_failed")
    assert response.json()["detail"][0]["loc"] == ["body", "post_id"]
    assert rows("SELECT 1 FROM votes") == []
