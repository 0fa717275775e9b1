"""Deletions with more rows than one transaction should remove: done at once for every request, then in batches."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from jose import jwt
from sqlalchemy import Connection, Engine, func, select, text
from starlette.testclient import TestClient

from app.cli import doctor
from app.config import get_settings
from app.database import deletion_marks
from app.database.locks import DELETION_LOCK
from app.models.session import adopted_session_id
from app.security import access_tokens
from app.services import api_key, deletion
from tests.fixtures import PASSWORD, ROOT, Person
from tests.races.conftest import Call, Crowd, count, statuses, wrong_counts
from tests.races.waiting import in_background, wait_until, wait_until_blocked
from tests.services.test_user_counts import WRONG

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
MANY = deletion_marks.MAX_ROWS_AT_ONCE + 200


def write_posts(database: Engine, owner: Person, number: int = MANY) -> list[int]:
    with database.begin() as connection:
        return list(
            connection.scalars(
                text("""
                    INSERT INTO posts (owner_id, title, content)
                    SELECT :owner, 'title ' || n, 'text' FROM generate_series(1, :number) AS n RETURNING id
                """),
                {"owner": owner.id, "number": number},
            )
        )


def vote_for_all(database: Engine, voter: Person, post_ids: list[int]) -> None:
    with database.begin() as connection:
        connection.execute(
            text("INSERT INTO votes (post_id, user_id) SELECT unnest(CAST(:ids AS bigint[])), :voter"),
            {"ids": post_ids, "voter": voter.id},
        )


def be_voted_for(database: Engine, post_id: int, number: int = MANY) -> None:
    """Votes for the post by accounts that are made for it."""
    with database.begin() as connection:
        connection.execute(
            text("""
                WITH voters AS (
                    INSERT INTO users (email, email_canonical, password_hash)
                    SELECT name, name, '' FROM (SELECT :post_id || '-' || n FROM generate_series(1, :number) AS n)
                        AS names (name) RETURNING id
                )
                INSERT INTO votes (post_id, user_id) SELECT :post_id, id FROM voters
            """),
            {"post_id": post_id, "number": number},
        )


def open_sessions(database: Engine, owner: Person, kind: str, number: int = MANY) -> list[int]:
    """Sign-ins or API keys; `key_of` has the keys."""
    with database.begin() as connection:
        ids = list(
            connection.scalars(
                text("""
                    INSERT INTO sessions (user_id, kind, expires_at)
                    SELECT :owner, :kind, now() + interval '1 day' FROM generate_series(1, :number) RETURNING id
                """),
                {"owner": owner.id, "kind": kind, "number": number},
            )
        )
        if kind == "api_key":
            connection.execute(
                text("""
                    INSERT INTO api_keys (session_id, name, scopes, key_hash)
                    SELECT id, 'key', '{read}', int8send(id) FROM unnest(CAST(:ids AS bigint[])) AS id
                """),
                {"ids": ids},
            )
    return ids


def key_of(database: Engine, session_id: int) -> dict[str, str]:
    """Headers with a key of that session."""
    key = api_key.make_key()
    with database.begin() as connection:
        connection.execute(
            text("UPDATE api_keys SET key_hash = :hash WHERE session_id = :id"),
            {"hash": api_key.digest(key), "id": session_id},
        )
    return {"X-API-Key": key}


def person_of(owner: Person, session_id: int) -> Person:
    """The same account, signed in with another session."""
    return Person(owner.id, owner.email, access_tokens.issue(owner.id, session_id, timedelta(minutes=5)), session_id)


def on_both(crowd: Crowd, *calls: Call) -> list[set[int]]:
    """The statuses of each call on two servers.

    On a busy machine a call may be 503 at first; then it is sent again.
    """
    sent = [call for call in calls for _ in range(2)]
    answers = crowd.send(sent)
    if any(answer.status_code == 503 for answer in answers):
        print(*(answer.text for answer in answers if answer.status_code == 503))  # noqa: T201
        time.sleep(2)
        answers = crowd.send(sent)
    return [{answers[2 * n].status_code, answers[2 * n + 1].status_code} for n in range(len(calls))]


# --- Accounts ---


def test_account_with_many_votes_is_gone_at_once_on_both_servers_and_its_names_are_free(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    author, reader = make_person(), make_person()
    admin = make_person(role="admin")
    leaver = make_person(username="leaver", email="leaver@example.com", role="moderator")
    vote_for_all(database, leaver, write_posts(database, author))
    own, draft = make_post(leaver, title="farewell"), make_post(leaver, published=False)
    (key,) = open_sessions(database, leaver, "api_key", 1)
    key_headers = key_of(database, key)

    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver)])) == {204: 1}

    assert count(connection, "votes WHERE user_id = :id", id=leaver.id) == MANY
    assert (
        on_both(
            crowd,
            Call("GET", "/users/me", leaver),
            Call("GET", "/users/me", headers=key_headers),
            Call("PUT", f"/posts/{own}/vote", leaver),
            Call("GET", f"/users/{leaver.id}", reader),
            Call("GET", f"/posts/{own}", reader),
            Call("PUT", f"/posts/{own}/vote", reader),
            Call("POST", "/vote", reader, {"post_id": own, "vote_dir": 1}),
            Call("GET", f"/posts/{draft}", admin),
            Call("DELETE", f"/posts/{own}", admin),
            Call("PATCH", f"/users/{leaver.id}", admin, {"is_active": True}),
            Call("DELETE", f"/users/{leaver.id}", admin),
        )
        == [{401}] * 3 + [{404}] * 8
    )
    # One after the other: while one is in progress, the same key is 409.
    keyed = Call("POST", "/vote", reader, {"post_id": own, "vote_dir": 1}, {"Idempotency-Key": "one"})
    assert [statuses(Crowd([server]).send([keyed])) for server in crowd.servers] == [{404: 1}, {404: 1}]
    lists = crowd.send(
        [
            Call("GET", path, admin)
            for sort in ("new", "old", "top", "hot")
            for path in (f"/posts?owner_id={leaver.id}&sort={sort}", f"/posts?search=farewell&sort={sort}")
        ]
        + [
            Call("GET", f"/posts?published=false&owner_id={leaver.id}", admin),
            Call("GET", "/users?email=leaver@example.com", admin),
            Call("GET", "/users?is_active=false", admin),
        ]
    )
    assert [answer.json() for answer in lists] == [[]] * len(lists)
    again = {"email": "Leaver@example.com", "username": "leaver", "password": PASSWORD}
    assert statuses(crowd.send([Call("POST", "/users", json=again)])) == {201: 1}
    assert wrong_counts(connection) == 0

    assert deletion.work() == 1

    assert count(connection, "users WHERE id = :id", id=leaver.id) == 0
    assert count(connection, "posts WHERE id IN (:own, :draft)", own=own, draft=draft) == 0
    assert count(connection, "votes") == count(connection, "deletions") == 0
    assert wrong_counts(connection) == 0


def test_account_whose_post_has_many_votes_is_deleted_in_batches(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    leaver = make_person()
    popular, other = make_post(leaver), make_post(leaver)
    be_voted_for(database, popular)

    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver)])) == {204: 1}
    assert count(connection, "votes WHERE post_id = :id", id=popular) == MANY
    assert deletion.work() == 1

    assert count(connection, "posts WHERE id IN (:a, :b)", a=popular, b=other) == 0
    assert count(connection, "votes") == count(connection, "users WHERE is_deleted") == 0


def test_post_with_many_bookmarks_is_gone_at_once_and_removed_in_batches(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner, reader = make_person(), make_person()
    post_id = make_post(owner)
    be_voted_for(database, post_id)
    connection.execute(text("INSERT INTO bookmarks (post_id, user_id) SELECT post_id, user_id FROM votes"))
    connection.execute(text("DELETE FROM votes"))

    assert statuses(crowd.send([Call("DELETE", f"/posts/{post_id}", owner)])) == {204: 1}
    assert count(connection, "bookmarks") == MANY
    assert on_both(crowd, Call("GET", f"/posts/{post_id}", reader)) == [{404}]
    assert on_both(crowd, Call("PUT", f"/posts/{post_id}/bookmark", reader)) == [{404}]
    assert deletion.work() == 1

    assert count(connection, "bookmarks") == count(connection, "posts") == 0
    assert count(connection, "user_stats WHERE posts <> 0") == 0


PAIRS = {
    "follows of others": "follows (follower_id, followee_id) SELECT :id, id FROM made",
    "followers": "follows (followee_id, follower_id) SELECT :id, id FROM made",
    "blocks": "blocks (blocker_id, blocked_id) SELECT :id, id FROM made",
    "blocks by others": "blocks (blocked_id, blocker_id) SELECT :id, id FROM made",
    "bookmarks": "bookmarks (user_id, post_id) SELECT :id, id FROM written",
    "bookmarks of a post": "bookmarks (user_id, post_id) SELECT made.id, own.id FROM made, own",
    "mutes": "post_mutes (user_id, post_id) SELECT :id, id FROM written",
    "mutes of a post": "post_mutes (user_id, post_id) SELECT made.id, own.id FROM made, own",
    "notifications": "notifications (user_id, kind, actor_id) SELECT :id, 'follow', id FROM made",
}


@pytest.mark.parametrize("rows", PAIRS)
def test_account_with_many_relations_is_deleted_in_batches_and_counts_of_others_stay_right(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost, rows: str
) -> None:
    leaver, other = make_person(), make_person()
    make_post(leaver)
    made = f"""
        WITH made AS (
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT 'x' || n, 'x' || n, '' FROM generate_series(1, :n) AS n RETURNING id
        ), own AS (
            SELECT id FROM posts
        ), written AS (
            INSERT INTO posts (title, content, owner_id)
            SELECT 't', 'c', :other FROM generate_series(1, :n) WHERE :is_bookmarks RETURNING id
        ) INSERT INTO {PAIRS[rows]}
    """
    values = {"id": leaver.id, "other": other.id, "n": MANY, "is_bookmarks": rows in {"bookmarks", "mutes"}}
    connection.execute(text(made), values)

    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver)])) == {204: 1}
    assert count(connection, "users WHERE id = :id AND is_deleted", id=leaver.id) == 1
    for path in ("followers", "following"):
        assert on_both(crowd, Call("GET", f"/users/{leaver.id}/{path}", other)) == [{404}]
    assert deletion.work() == 1

    assert count(connection, "users WHERE id = :id", id=leaver.id) == 0
    assert count(connection, PAIRS[rows].partition(" ")[0]) == 0
    assert connection.scalars(WRONG).all() == []


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("security_events (user_id, event)", ":id, 'signed_in'"),
        ("idempotency_keys (user_id, key, fingerprint, status, body, expires_at)", ":id, n::text, '', 201, '', now()"),
        ("posts (owner_id, title, content)", ":id, 'title', 'text'"),
        ("sessions (user_id, expires_at)", ":id, now() + interval '1 day'"),
    ],
)  # fmt: skip
def test_accounts_with_many_rows_of_another_kind_are_deleted_in_batches_too(
    crowd: Crowd, connection: Connection, make_person: MakePerson, table: str, values: str
) -> None:
    leaver = make_person()
    connection.execute(
        text(f"INSERT INTO {table} SELECT {values} FROM generate_series(1, {MANY}) AS n"), {"id": leaver.id}
    )

    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver)])) == {204: 1}
    assert count(connection, "users WHERE id = :id AND is_deleted", id=leaver.id) == 1
    assert on_both(crowd, Call("GET", "/users/me", leaver)) == [{401}]
    assert deletion.work() == 1

    assert count(connection, "users WHERE id = :id", id=leaver.id) == 0
    assert count(connection, table.partition(" ")[0]) == 0


def test_last_admin_with_many_votes_stays(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    admin = make_person(role="admin")
    vote_for_all(database, admin, write_posts(database, make_person()))

    assert statuses(crowd.send([Call("DELETE", "/users/me", admin)])) == {409: 1}
    assert count(connection, "users WHERE is_deleted") == count(connection, "deletions") == 0


def test_votes_cast_while_batches_remove_others_are_counted_right(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    post_ids = write_posts(database, make_person())
    leavers, voters = [make_person() for _ in range(2)], [make_person() for _ in range(10)]
    for leaver in leavers:
        vote_for_all(database, leaver, post_ids)
    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver) for leaver in leavers])) == {204: 2}

    working = in_background(deletion.work)
    calls = [
        Call("PUT", f"/posts/{post_id}/vote", voter) for number, voter in enumerate(voters) for post_id in post_ids[:30]
    ]
    assert statuses(crowd.send(calls)) == {200: len(calls)}
    assert working() == 2

    assert count(connection, "votes") == len(calls)
    assert wrong_counts(connection) == 0
    assert count(connection, "post_stats WHERE votes = 10") == 30


def test_two_concurrent_cleanups_remove_everything_once(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    post_ids = write_posts(database, make_person())
    leavers = [make_person() for _ in range(3)]
    for leaver in leavers:
        vote_for_all(database, leaver, post_ids)
    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver) for leaver in leavers])) == {204: 3}

    with ThreadPoolExecutor(3) as threads:
        finished = list(threads.map(lambda _: deletion.work(), range(3)))

    assert sum(finished) >= 3
    assert count(connection, "votes") == count(connection, "deletions") == count(connection, "users WHERE is_deleted")
    assert count(connection, "votes") == 0
    assert wrong_counts(connection) == 0


def test_server_leaves_deletions_to_the_process_that_is_at_work(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    leaver = make_person()
    vote_for_all(database, leaver, write_posts(database, make_person()))
    crowd.send([Call("DELETE", "/users/me", leaver)])

    with database.begin() as other:
        other.execute(select(func.pg_advisory_xact_lock(DELETION_LOCK)))
        assert deletion.work(waits_for_turn=False) == 0
        assert count(connection, "votes") == MANY
        waiting = in_background(deletion.work)  # As `python -m app cleanup` does.
        wait_until_blocked(connection, by=other)
        assert count(connection, "votes") == MANY

    assert waiting() == 1
    assert count(connection, "votes") == count(connection, "users WHERE is_deleted") == 0
    assert wrong_counts(connection) == 0


def test_batches_of_several_processes_never_overlap(
    crowd: Crowd,
    database: Engine,
    connection: Connection,
    make_person: MakePerson,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deletion, "BATCH_SECONDS", 0.1)
    post_ids = write_posts(database, make_person())
    leavers = [make_person() for _ in range(3)]
    for leaver in leavers:
        vote_for_all(database, leaver, post_ids)
    crowd.send([Call("DELETE", "/users/me", leaver) for leaver in leavers])
    spans: list[tuple[float, float]] = []
    remove = deletion._remove_batch

    def timed(*arguments: Any) -> bool:
        began_at = time.monotonic()
        try:
            return remove(*arguments)
        finally:
            spans.append((began_at, time.monotonic()))

    monkeypatch.setattr(deletion, "_remove_batch", timed)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: deletion.work(), range(3)))

    spans.sort()
    assert len(spans) > 3
    assert all(later > earlier for (_, earlier), (later, _) in pairwise(spans))
    assert count(connection, "votes") == count(connection, "deletions") == 0
    assert wrong_counts(connection) == 0


@pytest.mark.slow
def test_deletion_continues_after_its_process_was_killed(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    leaver = make_person()
    vote_for_all(database, leaver, write_posts(database, make_person(), 6_000))
    assert statuses(crowd.send([Call("DELETE", "/users/me", leaver)])) == {204: 1}

    process = subprocess.Popen([sys.executable, "-m", "app", "cleanup"], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60  # Starting Python takes 20 s on a busy machine.
        while count(connection, "votes") > 5_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = count(connection, "votes")
    assert 0 < left <= 5_000
    assert wrong_counts(connection) == 0
    assert count(connection, "deletions") == 1

    done = subprocess.run(
        [sys.executable, "-m", "app", "cleanup"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "deletions: 1 finished" in done.stdout
    assert count(connection, "votes") == count(connection, "users WHERE is_deleted") == 0
    assert wrong_counts(connection) == 0


def test_work_stops_on_request_or_at_its_time_limit(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    leaver = make_person()
    vote_for_all(database, leaver, write_posts(database, make_person()))
    crowd.send([Call("DELETE", "/users/me", leaver)])

    assert deletion.work(is_stopping=lambda: True) == 0
    assert count(connection, "votes") == MANY
    assert deletion.work() == 1


# --- Posts ---


def test_post_with_many_votes_is_gone_at_once_for_everyone(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner, moderator, reader = make_person(), make_person(role="moderator"), make_person()
    post_id = make_post(owner, title="farewell")
    be_voted_for(database, post_id)
    vote_for_all(database, reader, [post_id])

    assert statuses(crowd.send([Call("DELETE", f"/posts/{post_id}", owner)])) == {204: 1}

    assert count(connection, "votes WHERE post_id = :id", id=post_id) == MANY + 1
    everyone = (owner, moderator, reader)
    assert on_both(crowd, *(Call("GET", f"/posts/{post_id}", caller) for caller in everyone)) == [{404}] * 3
    assert on_both(
        crowd,
        *(Call("DELETE", f"/posts/{post_id}", caller) for caller in everyone),
        Call("PATCH", f"/posts/{post_id}", owner, {"published": True}),
        Call("PUT", f"/posts/{post_id}/vote", moderator),
        Call("DELETE", f"/posts/{post_id}/vote", reader),
    ) == [{404}] * 6  # fmt: skip
    lists = crowd.send(
        [Call("GET", path, caller) for caller in everyone for path in ("/posts", "/posts?sort=top", "/users/me/votes")]
        + [Call("GET", f"/posts?published=false&owner_id={owner.id}", caller) for caller in (owner, moderator)]
    )
    assert [answer.json() for answer in lists] == [[]] * len(lists)
    assert wrong_counts(connection) == 0

    assert deletion.work() == 1
    assert count(connection, "posts") == count(connection, "votes") == count(connection, "users WHERE is_deleted") == 0


def test_post_that_is_voted_on_while_it_is_deleted_leaves_nothing(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner, voters = make_person(), [make_person() for _ in range(40)]
    post_id = make_post(owner)
    be_voted_for(database, post_id)
    votes = [Call("PUT", f"/posts/{post_id}/vote", voter) for voter in voters]

    def work_for_a_while() -> None:
        for _ in range(20):
            deletion.work()
            time.sleep(0.05)

    working = in_background(work_for_a_while)
    answers = crowd.send([*votes[:20], Call("DELETE", f"/posts/{post_id}", owner), *votes[20:], *votes])
    working()

    assert answers[20].status_code == 204
    assert set(statuses([*answers[:20], *answers[21:]])) <= {200, 404}
    deletion.work()
    assert count(connection, "posts") == count(connection, "votes") == count(connection, "deletions") == 0
    assert wrong_counts(connection) == 0


def test_if_match_protects_a_post_with_many_votes(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner = make_person()
    post_id = make_post(owner)
    be_voted_for(database, post_id)
    crowd.send([Call("PATCH", f"/posts/{post_id}", owner, {"title": "new"})])
    (before,) = crowd.send([Call("GET", f"/posts/{post_id}", owner)])
    crowd.send([Call("PATCH", f"/posts/{post_id}", owner, {"title": "newer"})])

    stale = Call("DELETE", f"/posts/{post_id}", owner, headers={"If-Match": before.headers["etag"]})
    assert statuses(crowd.send([stale])) == {412: 1}
    assert count(connection, "deletions") == 0


# --- Sessions and keys ---


def test_ending_many_sessions_ends_each_at_once_and_keeps_this_one_and_the_keys(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    person = make_person()
    ended = open_sessions(database, person, "login")
    (key_id,) = open_sessions(database, person, "api_key", 1)
    key = key_of(database, key_id)
    connection.execute(
        text("INSERT INTO sessions (id, user_id, expires_at) VALUES (:id, :user, now() + interval '1 day')"),
        {"id": adopted_session_id(person.id), "user": person.id},
    )
    claims = {"user_id": person.id, "exp": int(time.time()) + 300}
    token = jwt.encode(claims, get_settings().signing_secret, access_tokens.ALGORITHM)
    adopted = Person(person.id, person.email, token, adopted_session_id(person.id))
    assert on_both(crowd, Call("GET", "/users/me", adopted)) == [{200}]

    assert statuses(crowd.send([Call("DELETE", "/sessions", person)])) == {204: 1}

    some_left = connection.scalars(text("SELECT id FROM sessions WHERE id = ANY (:ids)"), {"ids": ended}).all()
    assert len(some_left) >= MANY - deletion_marks.MAX_ROWS_AT_ONCE - 1
    left = [person_of(person, session_id) for session_id in (some_left[0], some_left[-1])]
    assert on_both(
        crowd,
        *(Call("GET", "/users/me", one) for one in (*left, adopted)),
        *(Call("GET", "/posts", one) for one in left),
        *(Call("PUT", "/posts/1/vote", one) for one in left),
        Call("DELETE", f"/sessions/{some_left[0]}", person),
        Call("GET", "/users/me", person),
        Call("GET", "/users/me", headers=key),
    ) == [{401}] * 7 + [{404}, {200}, {200}]
    (listed,) = crowd.send([Call("GET", "/sessions", person)])
    assert [one["id"] for one in listed.json()] == [person.session_id]
    later = make_session(connection, person)
    assert on_both(crowd, Call("GET", "/users/me", person_of(person, later))) == [{200}]

    assert deletion.work() == 1

    assert set(connection.scalars(text("SELECT id FROM sessions"))) == {person.session_id, key_id, later}
    assert count(connection, "deletions") == 0
    assert on_both(crowd, Call("GET", "/users/me", person), Call("GET", "/users/me", headers=key)) == [{200}] * 2


def make_session(connection: Connection, person: Person) -> int:
    statement = "INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"
    return int(connection.scalar(text(statement), {"id": person.id}) or 0)


def test_new_password_ends_many_sessions_and_keys_at_once(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    person = make_person()
    other = make_session(connection, person)
    open_sessions(database, person, "api_key")
    change = {"password": "another good one", "current_password": PASSWORD}

    assert statuses(crowd.send([Call("PATCH", "/users/me", person, change)])) == {200: 1}

    some_left = connection.scalars(text("SELECT id FROM sessions WHERE kind = 'api_key' ORDER BY id DESC")).all()
    assert some_left
    key = key_of(database, some_left[0])
    assert on_both(
        crowd,
        Call("GET", "/users/me", headers=key),
        Call("GET", "/users/me", person_of(person, other)),
        Call("DELETE", f"/api-keys/{some_left[0]}", person),
        Call("GET", "/users/me", person),
    ) == [{401}, {401}, {404}, {200}]
    (keys,) = crowd.send([Call("GET", "/api-keys", person)])
    assert keys.json() == []
    new = {"name": "new", "scopes": ["read"]}
    (made,) = crowd.send([Call("POST", "/api-keys", person, new)])
    made_key = {"X-API-Key": made.json()["key"]}
    assert on_both(crowd, Call("GET", "/users/me", headers=made_key)) == [{200}]

    assert deletion.work() == 1
    assert count(connection, "sessions") == 2
    assert on_both(crowd, Call("GET", "/users/me", headers=made_key)) == [{200}]


def test_sessions_of_a_disabled_account_stay_ended_when_it_is_enabled_again(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    admin, person = make_person(role="admin"), make_person()
    open_sessions(database, person, "login")
    key_ids = open_sessions(database, person, "api_key")
    for is_active in (False, True):
        change = Call("PATCH", f"/users/{person.id}", admin, {"is_active": is_active})
        assert statuses(crowd.send([change])) == {200: 1}

    left = connection.execute(text("SELECT id, kind FROM sessions WHERE user_id = :id"), {"id": person.id}).all()
    assert left
    login_id, *_ = [*(row.id for row in left if row.kind == "login"), person.session_id]
    key = key_of(database, key_ids[-1])
    assert (
        on_both(
            crowd,
            Call("GET", "/users/me", person),
            Call("GET", "/users/me", person_of(person, login_id)),
            Call("GET", "/users/me", headers=key),
        )
        == [{401}] * 3
    )
    assert deletion.work() == 1
    assert count(connection, "sessions WHERE user_id = :id", id=person.id) == 0


def test_two_sessions_that_end_all_others_at_once_end_each_other(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    person = make_person()
    # What the first request leaves is too much for the second, too. So both mark the newest rows, and remove others.
    open_sessions(database, person, "login", 2 * MANY)
    one, other = (person_of(person, make_session(connection, person)) for _ in range(2))
    waiting = "pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"

    with database.begin() as holding:
        holding.execute(text("SELECT FROM users WHERE id = :id FOR SHARE"), {"id": person.id})
        first = in_background(lambda: crowd.send([Call("DELETE", "/sessions", one)]))
        wait_until(connection, f"SELECT count(*) = 1 FROM {waiting}")
        second = in_background(lambda: crowd.send([Call("DELETE", "/sessions", other)]))
        wait_until(connection, f"SELECT count(*) = 2 FROM {waiting}")
    assert statuses([*first(), *second()]) == {204: 2}

    assert on_both(crowd, *(Call("GET", "/users/me", each) for each in (one, other))) == [{401}] * 2
    assert deletion.work() == 1
    assert count(connection, "sessions") == 0


def test_request_that_comes_as_the_last_batch_ends_is_not_lost(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    person = make_person()
    connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": person.id})
    open_sessions(database, person, "login")
    with database.begin() as worker:
        worker.execute(text("SELECT FROM deletions FOR UPDATE"))
        answers = in_background(lambda: crowd.send([Call("DELETE", "/sessions", person)]))
        wait_until_blocked(connection, by=worker)
        worker.execute(text("DELETE FROM deletions"))

    assert statuses(answers()) == {204: 1}
    assert count(connection, "deletions") == 1
    assert deletion.work() == 1
    assert set(connection.scalars(text("SELECT id FROM sessions"))) == {person.session_id}


def test_operator_ends_many_sessions_with_one_event(
    database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    person = make_person(username="operated")
    open_sessions(database, person, "api_key")

    done = subprocess.run(
        [sys.executable, "-m", "app", "user", "sessions", "operated", "--end-all"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "all ended\n"
    assert count(connection, "security_events WHERE event = 'session_ended'") == 1
    assert deletion.work() == 1
    assert count(connection, "sessions") == 0


# --- Tables that are not ours ---


@pytest.fixture
def remarks(database: Engine) -> Iterator[Callable[[str], None]]:
    """Make a table with a row that refers to every post, as an adopted database may have."""

    def make(action: str) -> None:
        with database.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE remarks (post_id bigint CONSTRAINT c REFERENCES posts {action})")
            connection.exec_driver_sql("INSERT INTO remarks SELECT id FROM posts")

    yield make
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS remarks")


@pytest.mark.parametrize("action", ["", "ON DELETE RESTRICT", "DEFERRABLE INITIALLY DEFERRED"])
def test_rows_referenced_by_foreign_tables_are_refused_and_stay(
    client: TestClient,
    connection: Connection,
    make_person: MakePerson,
    make_post: MakePost,
    remarks: Callable[[str], None],
    action: str,
) -> None:
    owner, admin = make_person(), make_person(role="admin")
    post_id = make_post(owner)
    remarks(action)

    for path, caller in ((f"/posts/{post_id}", owner), ("/users/me", owner), (f"/users/{owner.id}", admin)):
        answer = client.delete(path, headers=caller.headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "still_referenced")
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
        assert "remarks" not in answer.text

    assert client.get(f"/posts/{post_id}", headers=owner.headers).status_code == 200
    connection.exec_driver_sql("DELETE FROM remarks")
    assert client.delete("/users/me", headers=owner.headers).status_code == 204
    assert count(connection, "posts") == 0


@pytest.mark.parametrize("action", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_background_deletion_that_is_forbidden_is_put_off_and_holds_up_no_other(
    client: TestClient,
    database: Engine,
    connection: Connection,
    make_person: MakePerson,
    remarks: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    action: str,
) -> None:
    leaver, other = make_person(), make_person()
    write_posts(database, leaver)
    remarks(action)
    write_posts(database, other)
    for person in (leaver, other):
        assert client.delete("/users/me", headers=person.headers).status_code == 204

    with caplog.at_level("WARNING", logger="app"):
        assert deletion.work() == 1

    assert f"deletion blocked user_id={leaver.id} foreign_key=c of remarks" in caplog.text
    assert connection.scalars(text("SELECT id FROM users")).all() == [leaver.id]
    assert client.get("/users/me", headers=leaver.headers).status_code == 401
    assert client.post("/login", data={"username": leaver.email, "password": PASSWORD}).status_code == 403
    assert deletion.is_requested() is False
    assert deletion.work() == 0
    said = [str(finding) for finding in doctor.examine(database, get_settings(), is_full=False)]
    assert any("references: c of remarks prevent" in line for line in said)
    assert any(f"prevents deleting rows of deleted accounts {leaver.id}" in line for line in said)

    connection.exec_driver_sql("ALTER TABLE remarks DROP CONSTRAINT c")
    connection.exec_driver_sql("UPDATE deletions SET blocked_at = now() - interval '61 minutes'")
    assert deletion.is_requested() is True
    assert deletion.work() == 1
    assert (count(connection, "users"), count(connection, "posts"), count(connection, "deletions")) == (0, 0, 0)
