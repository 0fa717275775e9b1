"""Writes of the RealWorld API at the same time, on two server processes."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection

from tests.fixtures import PASSWORD, Person, Server
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses, wrong_counts
from tests.realworld.conftest import MakePost, name_of

pytestmark = pytest.mark.slow
SETTINGS = {"REALWORLD_ENABLED": "true", "RATE_LIMITS_ENABLED": "false"}
TIMES = 6


@pytest.fixture
def crowd(start_server: Callable[..., Server]) -> Crowd:
    servers: Sequence[Server] = [start_server(**SETTINGS) for _ in range(2)]
    return Crowd(servers)


def test_every_write_at_once_has_one_effect_and_no_deadlock(
    crowd: Crowd, connection: Connection, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id, deleted = make_post(person), make_post(person)
    before = deadlocks(connection)

    def at_once(*calls: Call) -> dict[int, int]:
        return statuses(crowd.send([call for call in calls for _ in range(TIMES)]))

    registrations = [
        Call(
            "POST", "/api/users", json={"user": {"username": "ada", "email": f"{n}@example.com", "password": PASSWORD}}
        )
        for n in range(TIMES)
    ]
    assert statuses(crowd.send(registrations)) == {201: 1, 409: TIMES - 1}
    assert count(connection, "users WHERE username = 'ada'") == 1
    assert count(connection, "sessions JOIN users ON users.id = user_id WHERE username = 'ada'") == 1

    article = f"/api/articles/{post_id}"
    assert [*at_once(Call("POST", f"{article}/favorite", other), Call("DELETE", f"{article}/favorite", other))] == [200]
    assert [*at_once(Call("POST", f"{article}/favorite", other))] == [200]
    assert count(connection, "votes WHERE post_id = :id", id=post_id) == 1
    follow = f"/api/profiles/{name_of(person)}/follow"
    assert [*at_once(Call("POST", follow, other), Call("DELETE", follow, other))] == [200]
    changes = [Call("PUT", article, person, {"article": {"description": f"{n}", "tagList": [f"{n}"]}}) for n in (1, 2)]
    assert [*at_once(*changes)] == [200]
    assert count(connection, "posts WHERE id = :id AND description = tags[1]", id=post_id) == 1
    images = [Call("PUT", "/api/user", person, {"user": {"image": f"/{n}", "bio": f"/{n}"}}) for n in (1, 2)]
    assert [*at_once(*images)] == [200]
    assert count(connection, "users WHERE id = :id AND image_url = bio", id=person.id) == 1
    assert [*at_once(Call("POST", f"{article}/comments", other, {"comment": {"body": "x"}}))] == [201]
    assert count(connection, "comments") == TIMES
    assert at_once(Call("DELETE", f"/api/articles/{deleted}", person)) == {204: 1, 404: TIMES - 1}

    assert wrong_counts(connection) == 0
    assert deadlocks(connection) == before
