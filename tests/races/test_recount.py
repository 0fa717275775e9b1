"""Repairing counts during votes, deletions and damage: in the end every count equals its rows."""

import random
from collections.abc import Callable

from sqlalchemy import Connection, Engine, text

from app.services import recount
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, deadlocks, statuses, wrong_counts
from tests.races.waiting import in_background


def test_counts_are_repaired_during_votes_and_deletions(
    crowd: Crowd,
    database: Engine,
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
) -> None:
    voters = [make_person() for _ in range(20)]
    posts = [make_post(voters[n % 20]) for n in range(15)]
    ended = deadlocks(connection)
    with database.begin() as harm:
        harm.execute(text("SET LOCAL session_replication_role = replica"))
        harm.execute(text("UPDATE post_stats SET votes = 1000"))
    draw = random.Random(7)
    calls = [
        Call("POST", "/vote", voter, {"post_id": draw.choice(posts), "vote_dir": draw.choice((1, 1, 0))})
        for voter in voters
        for _ in range(20)
    ]
    calls += [Call("DELETE", f"/posts/{post_id}", voters[n % 20]) for n, post_id in enumerate(posts[:5])]
    calls += [Call("DELETE", "/users/me", voters[19])]
    draw.shuffle(calls)

    def mend() -> list[int]:
        return [
            post_id
            for _ in range(20)
            for batch in recount.recount(is_repairing=True, batch_rows=4)
            for post_id in batch.wrong
        ]

    mending = in_background(mend)
    answers = crowd.send(calls)
    found = mending()

    assert set(statuses(answers)) <= {201, 204, 401, 404, 409}
    assert len(found) > 0
    assert wrong_counts(connection) == 0
    assert deadlocks(connection) == ended
