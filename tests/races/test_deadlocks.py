"""Deadlocks are invisible to clients, and killed connections are answered with 503."""

import random
import sys
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses, wrong_counts
from tests.races.killing import backends_killed
from tests.races.waiting import in_background, wait_until, wait_until_blocked


def check_pressure(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int],
    *, people_count: int, rounds: int,
) -> None:  # fmt: skip
    owner = make_person()
    admin = make_person(role="admin")
    stay = [make_person() for _ in range(people_count)]
    leave = [make_person() for _ in range(people_count // 2)]
    post_ids = [make_post(owner) for _ in range(5)]
    before = deadlocks(connection)
    seen: list[int] = []

    def voter(person: Person, number: int) -> Callable[[httpx2.AsyncClient], Awaitable[None]]:
        async def act(client: httpx2.AsyncClient) -> None:
            for turn in range(rounds):
                for post_id in post_ids if (number + turn) % 2 else reversed(post_ids):
                    # Half of the ballots are kept answers: cast one by one, after the others of their batch.
                    headers = {"Idempotency-Key": f"{turn}-{post_id}"} if number % 4 < 2 else {}
                    body = {"post_id": post_id, "vote_dir": (turn + 1) % 2}
                    answer = await Call("POST", "/vote", person, body, headers).send(client)
                    seen.append(answer.status_code)

        return act

    async def delete_users(client: httpx2.AsyncClient) -> None:
        for person in leave:
            answer = await Call("DELETE", f"/users/{person.id}", admin).send(client)
            seen.append(answer.status_code)

    async def write_and_delete_posts(client: httpx2.AsyncClient) -> None:
        for turn in range(rounds * 4):
            answer = await Call("POST", "/posts", leave[-1], {"title": "short", "content": "lived"}).send(client)
            if answer.status_code == 401:
                return
            post_id = answer.json()["id"]
            seen.append(
                (await Call("PUT", f"/posts/{post_id}/vote", stay[turn % people_count]).send(client)).status_code
            )
            seen.append((await Call("DELETE", f"/posts/{post_id}", admin).send(client)).status_code)

    voters = [voter(person, number) for number, person in enumerate([*stay, *leave])]
    crowd.run([delete_users, write_and_delete_posts, *voters])

    found = {status: seen.count(status) for status in sorted(set(seen))}
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    deadlock_count = deadlocks(connection) - before
    sys.stdout.write(f"pressure: {found}, {deadlock_count} deadlocks\n")
    assert set(found) <= {200, 201, 204, 401, 404}, "an answer that no race explains"
    assert deadlock_count == 0, "a statement does not keep to the order of locks"
    assert wrong_counts(connection) == 0
    assert count(connection, "votes") == (people_count * 5 if rounds % 2 else 0)


def test_ballots_in_both_directions_and_deletions_meet_without_an_error(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    check_pressure(crowd, connection, make_person, make_post, people_count=20, rounds=3)


@pytest.mark.slow
def test_long_pressure_of_ballots_in_both_directions_and_deletions(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    check_pressure(crowd, connection, make_person, make_post, people_count=60, rounds=25)


@pytest.mark.parametrize("has_key", [False, True])
def test_vote_that_loses_a_forced_deadlock_is_cast_again_and_counted_once(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, make_post: Callable[..., int], has_key: bool
) -> None:
    post_id = make_post(person)
    vote = Call("PUT", f"/posts/{post_id}/vote", person)
    if has_key:
        vote = Call("POST", "/vote", person, {"post_id": post_id, "vote_dir": 1}, {"Idempotency-Key": "k"})
    with database.begin() as opponent:
        opponent.execute(text("SELECT FROM post_stats FOR UPDATE"))
        answers = in_background(lambda: crowd.send([vote]))
        wait_until_blocked(connection, by=opponent)
        # The vote has its post and waits for the count; it waits longer, so it is the one that PostgreSQL breaks off.
        opponent.execute(text("SELECT FROM posts FOR UPDATE"))

    assert statuses(answers()) == {201 if has_key else 200: 1}
    assert count(connection, "votes") == 1
    assert wrong_counts(connection) == 0


def test_deletion_that_loses_a_forced_deadlock_runs_again(
    crowd: Crowd, connection: Connection, database: Engine, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    with database.begin() as opponent:
        opponent.execute(text("SELECT FROM post_stats FOR UPDATE"))
        answers = in_background(lambda: crowd.send([Call("DELETE", f"/posts/{post_id}", person)]))
        wait_until_blocked(connection, by=opponent)
        opponent.execute(text("SELECT FROM posts FOR UPDATE"))

    assert statuses(answers()) == {204: 1}
    assert count(connection, "posts") == 0


def test_post_and_its_voter_deleted_at_once_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person],
    make_post: Callable[..., int], cast_votes: Callable[..., None],
) -> None:  # fmt: skip
    """Deleting a post locks the votes before the count; deleting a user locks the count before the votes."""
    owner, voter = make_person(), make_person()
    post_id = make_post(owner)
    cast_votes(post_id, [voter])
    before = deadlocks(connection)
    with database.begin() as third:
        third.execute(text("SELECT FROM post_stats FOR UPDATE"))
        deletion = in_background(lambda: crowd.send([Call("DELETE", f"/users/{voter.id}", voter)]))
        wait_until_blocked(connection, by=third)
        other = in_background(lambda: crowd.send([Call("DELETE", f"/posts/{post_id}", owner)]))
        # The second waits behind the first, or for the third.
        wait_until(
            connection,
            "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        )

    assert statuses([*deletion(), *other()]) == {204: 2}
    assert count(connection, "votes") == count(connection, "post_stats") == 0
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def check_killing(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int],
    *, people_count: int, votes_each: int,
) -> None:  # fmt: skip
    people = [make_person() for _ in range(people_count)]
    post_ids = [make_post(people[0]) for _ in range(10)]
    there: set[tuple[int, int]] = set()
    unknown: set[tuple[int, int]] = set()
    seen: list[int] = []

    def voter(person: Person, seed: int) -> Callable[[httpx2.AsyncClient], Awaitable[None]]:
        chance = random.Random(seed)

        async def act(client: httpx2.AsyncClient) -> None:
            for _ in range(votes_each):
                post_id, direction = chance.choice(post_ids), chance.choice([1, 1, 0])
                pair = (post_id, person.id)
                answer = await Call("POST", "/vote", person, {"post_id": post_id, "vote_dir": direction}).send(client)
                seen.append(answer.status_code)
                if answer.status_code == 503:
                    assert answer.headers["Retry-After"]
                    unknown.add(pair)
                    continue
                if pair not in unknown:
                    assert (answer.status_code == 409) == (direction == 1 and pair in there)
                    assert (answer.status_code == 404) == (direction == 0 and pair not in there)
                # The state is known again.
                unknown.discard(pair)
                (there.add if direction else there.discard)(pair)

        return act

    with backends_killed(connection, crowd) as killed:
        crowd.run([voter(person, seed) for seed, person in enumerate(people)])

    found = {status: seen.count(status) for status in sorted(set(seen))}
    sys.stdout.write(f"killing: {found}, {len(killed)} backends killed\n")
    assert set(found) == {201, 404, 409, 503}
    rows = {(row.post_id, row.user_id) for row in connection.execute(text("SELECT post_id, user_id FROM votes"))}
    assert there - unknown - rows == set(), "acknowledged votes are lost"
    assert rows - unknown - there == set(), "votes that were taken back are there"
    assert wrong_counts(connection) == 0


def test_killed_backends_cost_answers_but_no_acknowledged_vote(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    check_killing(crowd, connection, make_person, make_post, people_count=20, votes_each=25)


@pytest.mark.slow
def test_backends_killed_for_long_cost_no_acknowledged_vote(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    check_killing(crowd, connection, make_person, make_post, people_count=50, votes_each=200)
