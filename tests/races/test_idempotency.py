"""Requests repeated with their Idempotency-Key happen once: concurrently, and after a killed server."""

import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from tests.fixtures import PASSWORD, Person, Server
from tests.races.conftest import Call, Crowd, count, statuses, wrong_counts
from tests.races.waiting import in_background, wait_until, wait_until_blocked

MakeCall = Callable[[Person, int], Call]
HOLD = 5077  # Of an advisory lock.


def write_post(caller: Person, post_id: int) -> Call:  # noqa: ARG001 - all three take the same.
    return Call("POST", "/posts", caller, {"title": "once", "content": "only"})


def sign_up(caller: Person, post_id: int) -> Call:  # noqa: ARG001
    return Call("POST", "/users", None, {"email": "once@example.com", "password": PASSWORD})


def vote(caller: Person, post_id: int) -> Call:
    return Call("POST", "/vote", caller, {"post_id": post_id, "vote_dir": 1})


def keyed(call: Call, key: str) -> Call:
    return Call(call.method, call.path, call.caller, call.json, {"Idempotency-Key": key})


creates = pytest.mark.parametrize(
    ("make_call", "effect"),
    [
        (write_post, "posts WHERE title = 'once'"),
        (sign_up, "users WHERE email = 'once@example.com'"),
        (vote, "votes"),
    ],
)


@creates
def test_same_key_twenty_times_at_once_has_one_effect_and_one_answer(
    make_call: MakeCall, effect: str, crowd: Crowd, connection: Connection, person: Person,
    make_post: Callable[..., int],
) -> None:  # fmt: skip
    call = keyed(make_call(person, make_post(person)), "twenty")

    answers = crowd.send([call] * 20)
    (later,) = crowd.send([call])

    done = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len([answer for answer in done if "Idempotency-Replayed" not in answer.headers]) == 1
    assert {answer.content for answer in done} == {later.content}
    assert later.headers["Idempotency-Replayed"] == "true"
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} <= {(409, "idempotency_in_progress")}
    assert count(connection, effect) == 1
    assert count(connection, "idempotency_keys") == 1
    assert wrong_counts(connection) == 0


def test_same_key_at_once_for_different_votes_counts_one_of_them(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    calls = [keyed(vote(person, make_post(person)), "which") for _ in range(20)]

    answers = crowd.send(calls)

    assert set(statuses(answers)) <= {201, 409, 422}
    assert statuses(answers)[201] == 1
    assert count(connection, "votes") == 1
    assert wrong_counts(connection) == 0


@contextmanager
def commits_that_wait(database: Engine) -> Iterator[Connection]:
    """Make every COMMIT that stores a response wait until the connection's transaction ends."""
    with database.begin() as connection:
        connection.execute(
            text(f"""
                CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared({HOLD}); RETURN NULL; END $$
            """)
        )
        connection.execute(
            text("""
                CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON idempotency_keys
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()
            """)
        )
    try:
        with database.begin() as holding:
            holding.execute(text(f"SELECT pg_advisory_xact_lock({HOLD})"))
            yield holding
    finally:
        with database.begin() as connection:
            connection.execute(text("DROP FUNCTION hold CASCADE"))


@creates
def test_server_killed_between_commit_and_answer_leaves_the_answer_for_the_retry(
    make_call: MakeCall, effect: str, start_server: Callable[..., Server], crowd: Crowd, database: Engine,
    connection: Connection, person: Person, make_post: Callable[..., int],
) -> None:  # fmt: skip
    call = keyed(make_call(person, make_post(person)), "killed")
    doomed = start_server()
    with commits_that_wait(database) as holding:
        answer = in_background(lambda: Crowd([doomed]).send([call]))
        wait_until_blocked(connection, by=holding)
        doomed.process.send_signal(signal.SIGKILL)
        doomed.process.wait()
    with pytest.raises(httpx2.TransportError):
        answer()
    wait_until(connection, "SELECT count(*) = 1 FROM idempotency_keys")

    (retry,) = crowd.send([call])

    assert retry.status_code == 201
    assert retry.headers["Idempotency-Replayed"] == "true"
    assert count(connection, effect) == 1
    assert wrong_counts(connection) == 0


def test_every_request_of_a_killed_server_happens_once_when_all_are_sent_again(
    start_server: Callable[..., Server], crowd: Crowd, connection: Connection, make_person: Callable[..., Person],
) -> None:  # fmt: skip
    people = [make_person() for _ in range(20)]
    calls = [
        Call("POST", "/posts", writer, {"title": "again", "content": f"{n}"}, {"Idempotency-Key": f"{n}"})
        for writer in people
        for n in range(8)
    ]
    doomed = start_server()

    def send(call: Call) -> Callable[[httpx2.AsyncClient], Awaitable[bytes | None]]:
        async def try_to(client: httpx2.AsyncClient) -> bytes | None:
            try:
                return (await call.send(client)).content
            except httpx2.TransportError:
                return None

        return try_to

    first = in_background(lambda: Crowd([doomed]).run([send(call) for call in calls]))
    wait_until(connection, "SELECT count(*) > 30 FROM idempotency_keys")
    doomed.process.kill()
    answered = first()
    assert None in answered, "the server was done before it was killed"
    time.sleep(0.2)  # Backends of the killed server finish their statements.

    answers = crowd.send(calls)

    assert statuses(answers) == {201: len(calls)}
    for before, after in zip(answered, answers, strict=True):
        assert before in {None, after.content}, "the answer changed"
    assert count(connection, "posts") == len(calls)
    assert count(connection, "(SELECT DISTINCT owner_id, content FROM posts) AS post") == len(calls)
