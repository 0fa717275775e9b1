"""Votes that arrive together: one user, one post, at most one vote; and counts that equal the rows."""

import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from tests.figures import Figure
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, statuses, wrong_counts
from tests.races.killing import backends_killed
from tests.races.waiting import in_background, wait_until_blocked


def vote(caller: Person, post_id: int, direction: int = 1) -> Call:
    return Call("POST", "/vote", caller, {"post_id": post_id, "vote_dir": direction})


def test_forty_identical_votes_at_once_are_one_vote_and_39_refusals(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)

    answers = crowd.send([vote(person, post_id)] * 40)

    assert statuses(answers) == {201: 1, 409: 39}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_voted"}
    assert count(connection, "votes") == 1
    assert connection.scalar(text("SELECT votes FROM post_stats")) == 1


def test_forty_identical_retractions_at_once_take_back_one_vote(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int],
    cast_votes: Callable[..., None],
) -> None:  # fmt: skip
    post_id = make_post(person)
    cast_votes(post_id, [person])

    answers = crowd.send([vote(person, post_id, 0)] * 40)

    assert statuses(answers) == {201: 1, 404: 39}
    assert count(connection, "votes") == 0
    assert wrong_counts(connection) == 0


def test_forty_times_put_vote_at_once_is_200_each_time_and_one_vote(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)

    answers = crowd.send([Call("PUT", f"/posts/{post_id}/vote", person)] * 40)

    assert statuses(answers) == {200: 40}
    assert {answer.text for answer in answers} == {f'{{"post_id":{post_id},"votes":1,"voted":true}}'}
    assert count(connection, "votes") == 1
    assert wrong_counts(connection) == 0


def test_votes_of_many_on_one_post_are_all_counted(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    people = [make_person() for _ in range(60)]
    post_id = make_post(people[0])

    answers = crowd.send([vote(voter, post_id) for voter in people])

    assert statuses(answers) == {201: 60}
    assert max(answer.json()["votes"] for answer in answers) == 60
    assert count(connection, "votes") == 60
    assert wrong_counts(connection) == 0


def test_a_page_counts_votes_that_were_in_flight_at_the_request(
    crowd: Crowd, connection: Connection, database: Engine, make_person: Callable[..., Person],
    make_post: Callable[..., int],
) -> None:  # fmt: skip
    owner, other = make_person(), make_person()
    post_id = make_post(owner)
    with database.begin() as under_way:
        under_way.execute(text("INSERT INTO votes (post_id, user_id) VALUES (:p, :u)"), {"p": post_id, "u": owner.id})
        answers = in_background(lambda: crowd.send([vote(other, post_id)]))
        wait_until_blocked(connection, by=under_way)

    assert answers()[0].json()["votes"] == 2
    assert wrong_counts(connection) == 0


def storm(
    crowd: Crowd,
    people: list[Person],
    post_ids: list[int],
    *,
    votes_each: int,
    interruptions: list[Call],
) -> Counter[tuple[str, int]]:
    """All users vote and retract at random during the interruptions.

    Returns the number of each status.
    """
    seen: Counter[tuple[str, int]] = Counter()

    def voter(voter: Person, seed: int) -> Callable[[httpx2.AsyncClient], Awaitable[None]]:
        chance = random.Random(seed)

        async def act(client: httpx2.AsyncClient) -> None:
            for _ in range(votes_each):
                post_id = chance.choice(post_ids)
                call = chance.choice(
                    [
                        vote(voter, post_id, 1),
                        vote(voter, post_id, 0),
                        Call("PUT", f"/posts/{post_id}/vote", voter),
                        Call("DELETE", f"/posts/{post_id}/vote", voter),
                    ]
                )
                seen["vote", (await call.send(client)).status_code] += 1

        return act

    async def interrupt(client: httpx2.AsyncClient) -> None:
        for call in interruptions:
            # Spread over the storm: each waits for some votes.
            before = seen.total()
            while seen.total() < before + votes_each and seen.total() < votes_each * len(people) * 0.9:
                await Call("GET", "/livez").send(client)
            while (answer := await call.send(client)).status_code == 503:  # Where connections are killed.
                pass
            seen[call.method, answer.status_code] += 1

    crowd.run([interrupt, *(voter(person, seed) for seed, person in enumerate(people))])
    sys.stdout.write(f"storm: {dict(sorted(seen.items()))}\n")
    return seen


def check_storm(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int],
    *, people_count: int, votes_each: int, may_kill: bool = False,
) -> str:  # fmt: skip
    people = [make_person() for _ in range(people_count)]
    admin = make_person(role="admin")
    post_ids = [make_post(people[n % 10]) for n in range(20)]
    interruptions = [
        call
        for n in range(5)
        for call in (
            Call(
                "DELETE", f"/posts/{post_ids[-1 - n]}", admin
            ),  # A post of a user that stays. The deletion is refused.
            Call("DELETE", f"/users/{people[n].id}", admin),  # The owner of two posts, and a voter.
            Call("DELETE", f"/users/{people[-1 - n].id}", admin),  # A user who only votes.
        )
    ]

    with backends_killed(connection, crowd) if may_kill else nullcontext(set[int]()) as killed:
        seen = storm(crowd, people, post_ids, votes_each=votes_each, interruptions=interruptions)

    explained = {200, 201, 204, 401, 404, 409} | ({503} if may_kill else set())
    assert {status for _, status in seen} <= explained, "an answer that no race explains"
    # One whose answer was lost with its connection is 404 when it is sent again.
    assert seen["DELETE", 204] >= (10 if may_kill else 14), "the deletions did not happen"
    assert seen["vote", 503] > 0 or not may_kill, "no connection was killed in use"
    assert seen["vote", 401] > 0, "no user voted after their account was deleted"
    assert wrong_counts(connection) == 0
    assert count(connection, "(SELECT FROM votes GROUP BY post_id, user_id HAVING count(*) > 1) AS pair") == 0
    assert count(connection, "votes") > 0
    votes = {status: number for (what, status), number in sorted(seen.items()) if what == "vote"}
    return f"{sum(votes.values())} votes and retractions, {votes}, {len(killed)} connections killed"


def test_counts_equal_votes_after_a_storm_in_which_posts_and_users_are_deleted(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    check_storm(crowd, connection, make_person, make_post, people_count=30, votes_each=40)


@pytest.mark.slow
def test_counts_equal_votes_after_10_000_random_votes_while_connections_are_killed(
    crowd: Crowd,
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    figure: Figure,
) -> None:
    figure(
        "R4: "
        + check_storm(crowd, connection, make_person, make_post, people_count=50, votes_each=250, may_kill=True)
        + ": no count differs"
    )


def test_post_deleted_while_votes_arrive_leaves_nothing_behind(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    people = [make_person() for _ in range(40)]
    for _ in range(5):
        post_id = make_post(people[0])

        calls = [vote(voter, post_id) for voter in people]
        calls.insert(20, Call("DELETE", f"/posts/{post_id}", people[0]))
        answers = crowd.send(calls)

        assert answers[20].status_code == 204
        assert set(statuses(answers)) <= {201, 204, 404}
        assert count(connection, "votes") == 0
        assert count(connection, "post_stats") == 0


def test_user_deleted_while_voting_leaves_nothing_behind(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person], make_post: Callable[..., int],
    cast_votes: Callable[..., None],
) -> None:  # fmt: skip
    owner, stays = make_person(), make_person()
    post_ids = [make_post(owner) for _ in range(30)]
    for post_id in post_ids:
        cast_votes(post_id, [stays])
    for _ in range(3):
        leaver = make_person()

        calls = [vote(leaver, post_id) for post_id in post_ids]
        calls.insert(12, Call("DELETE", "/users/me", leaver))
        answers = crowd.send(calls)

        assert answers[12].status_code == 204
        assert set(statuses(answers)) <= {201, 204, 401}
        assert statuses(crowd.send([vote(leaver, post_id) for post_id in post_ids[:4]])) == {401: 4}
        assert statuses(crowd.send([Call("GET", "/posts", leaver)] * 2)) == {401: 2}
        assert count(connection, "votes WHERE user_id = :id", id=leaver.id) == 0
        assert count(connection, "sessions WHERE user_id = :id", id=leaver.id) == 0
        assert count(connection, "votes WHERE user_id = :id", id=stays.id) == 30
        assert wrong_counts(connection) == 0


def test_posts_written_while_their_writer_is_deleted_leave_nothing_behind(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    leaver = make_person()
    new = {"title": "a post", "content": "of a user who leaves"}

    calls = [Call("POST", "/posts", leaver, new) for _ in range(30)]
    calls.insert(15, Call("DELETE", "/users/me", leaver))
    answers = crowd.send(calls)

    assert answers[15].status_code == 204
    assert set(statuses(answers)) <= {201, 204, 401}
    assert count(connection, "users") == count(connection, "posts") == count(connection, "post_stats") == 0


def test_post_written_while_the_deletion_of_its_writer_commits_is_refused(
    crowd: Crowd, connection: Connection, database: Engine, person: Person
) -> None:
    new = {"title": "a post", "content": "of a user who leaves"}

    with database.connect() as deletion:
        deletion.execute(text("DELETE FROM users WHERE id = :id"), {"id": person.id})
        answers = in_background(lambda: crowd.send([Call("POST", "/posts", person, new)]))
        wait_until_blocked(connection, by=deletion)
        deletion.commit()

    (answer,) = answers()
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert count(connection, "posts") == 0
