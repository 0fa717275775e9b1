"""Deletions of large accounts, posts and sets of sessions, while others vote and read: two workers, fsync on."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.chaos.conftest import Postgres, miscounted
from tests.chaos.load import Answer, Answers, Client, press
from tests.figures import Figure
from tests.fixtures import Person, Server

Start = Callable[..., Server]
SETTLING_SECONDS = 5
TIMEOUT_SECONDS = 500
SERVERS = {"WORKERS": "2", "CLEANUP_INTERVAL_MINUTES": "60"}
VOTES_OF_ACCOUNT, VOTES_OF_POST, KEYS = 250_000, 1_000_000, 600_000


@dataclass
class Others:
    """Other users that vote for these posts and read pages until the block ends, and their responses."""

    votes: Answers = field(default_factory=Answers)
    pages: Answers = field(default_factory=Answers)

    def words(self, since: float, until: float) -> str:
        measured = []
        for name, answers in (("votes", self.votes), ("pages", self.pages)):
            during = Answers([one for one in answers.all if since <= one.began_at <= until])
            longest = 1000 * max(one.seconds for one in during.all)
            p99 = during.percentile_milliseconds(99)
            measured.append(f"{len(during.all):,} {name}: p99 {p99:.0f} ms, longest {longest:.0f} ms")
        return "; ".join(measured)


@contextmanager
def others_at_work(server: Server, people: Sequence[Person], post_ids: Sequence[int]) -> Iterator[Others]:
    others, is_over = Others(), threading.Event()

    async def run() -> None:
        async def vote(client: Client, number: int) -> Answer:
            await asyncio.sleep(0.02)
            post_id = post_ids[(len(others.votes.all) * 7919 + number) % len(post_ids)]
            answer = await client.send("DELETE" if len(others.votes.all) % 2 else "PUT", f"/posts/{post_id}/vote")
            others.votes.all.append(answer)
            return answer

        async def read(client: Client, number: int) -> Answer:
            await asyncio.sleep(0.02)
            answer = await client.send("GET", ("/posts", "/posts?sort=top", "/posts?sort=hot")[number % 3])
            others.pages.all.append(answer)
            return answer

        clients = [Client(server.url, one.token) for one in people]
        await asyncio.gather(
            press(clients[:6], vote, until=is_over.is_set), press(clients[6:12], read, until=is_over.is_set)
        )

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield others
    finally:
        is_over.set()
        thread.join()
    assert set(others.votes.statuses) == {200}
    assert set(others.pages.statuses) == {200}


def seconds_to_delete(server: Server, caller: Person, method: str, path: str, body: object = None) -> float:
    began_at = time.monotonic()
    answer = httpx2.request(method, f"{server.url}{path}", headers=caller.headers, json=body, timeout=60)
    assert answer.status_code in {200, 204}, answer.text
    return time.monotonic() - began_at


def wait_until_finished(connection: Connection) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while connection.scalar(text("SELECT EXISTS (SELECT FROM deletions)")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def delete_while_others_work(
    server: Server,
    connection: Connection,
    others: Sequence[Person],
    post_ids: Sequence[int],
    delete: Callable[[], float],
) -> str:
    """Delete while others work; return the response and the times.

    The times are that of the deletion, and those of the others before and during it.
    """
    with others_at_work(server, others, post_ids) as work:
        began_at = time.monotonic()
        time.sleep(SETTLING_SECONDS)
        deleted_at = time.monotonic()
        seconds = delete()
        wait_until_finished(connection)
        ended_at = time.monotonic()
        time.sleep(1)
    assert miscounted(connection) == 0
    assert seconds < 3
    return (
        f"answered after {seconds:.2f} s, all gone after {ended_at - deleted_at:.1f} s; meanwhile"
        f" {work.words(deleted_at, ended_at)}; before {work.words(began_at, deleted_at)}"
    )


def write_posts(connection: Connection, owner: Person, number: int) -> list[int]:
    statement = """
        INSERT INTO posts (owner_id, title, content)
        SELECT :owner, 'title ' || n, 'text' FROM generate_series(1, :number) AS n RETURNING id
    """
    return list(connection.scalars(text(statement), {"owner": owner.id, "number": number}))


def vote(connection: Connection, sql: str, **values: object) -> None:
    connection.execute(text(f"INSERT INTO votes (post_id, user_id) {sql}"), values)
    connection.execute(text("VACUUM ANALYZE"))


@pytest.mark.slow
def test_account_with_250_000_votes_is_deleted_while_others_vote(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    author, leaver, *others = people
    with postgres.connect() as connection:
        post_ids = write_posts(connection, author, VOTES_OF_ACCOUNT)
        vote(connection, "SELECT id, :id FROM posts", id=leaver.id)
        server = start(**SERVERS)

        measured = delete_while_others_work(
            server, connection, others, post_ids, lambda: seconds_to_delete(server, leaver, "DELETE", "/users/me")
        )

        assert connection.scalar(text("SELECT count(*) FROM users WHERE id = :id"), {"id": leaver.id}) == 0
        assert connection.scalar(text("SELECT count(*) FROM votes WHERE user_id = :id"), {"id": leaver.id}) == 0
    figure(f"R20: an account with {VOTES_OF_ACCOUNT:,} votes: {measured}")


@pytest.mark.slow
def test_account_with_50_000_posts_is_deleted_while_others_read(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    author, leaver, *others = people
    with postgres.connect() as connection:
        post_ids = write_posts(connection, author, 1000)
        write_posts(connection, leaver, 50_000)
        vote(connection, "SELECT id, :id FROM posts WHERE owner_id = :leaver", id=author.id, leaver=leaver.id)
        server = start(**SERVERS)

        measured = delete_while_others_work(
            server, connection, others, post_ids, lambda: seconds_to_delete(server, leaver, "DELETE", "/users/me")
        )

        assert connection.scalar(text("SELECT count(*) FROM posts WHERE owner_id = :id"), {"id": leaver.id}) == 0
    figure(f"R20: an account with 50,000 posts: {measured}")


@pytest.mark.slow
def test_post_with_a_million_votes_is_deleted_while_others_vote(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    author, owner, *others = people
    with postgres.connect() as connection:
        post_ids = write_posts(connection, author, 1000)
        (popular,) = write_posts(connection, owner, 1)
        name = "'v' || n"
        connection.execute(
            text(f"""
                INSERT INTO users (email, email_canonical, password_hash)
                SELECT {name}, {name}, '' FROM generate_series(1, {VOTES_OF_POST}) AS n
            """)
        )
        vote(connection, "SELECT :post, id FROM users WHERE email ~ '^v'", post=popular)
        server = start(**SERVERS)

        measured = delete_while_others_work(
            server,
            connection,
            others,
            post_ids,
            lambda: seconds_to_delete(server, owner, "DELETE", f"/posts/{popular}"),
        )

        assert connection.scalar(text("SELECT count(*) FROM votes WHERE post_id = :id"), {"id": popular}) == 0
        assert connection.scalar(text("SELECT count(*) FROM users WHERE is_deleted")) == 0
    figure(f"R20: a post with {VOTES_OF_POST:,} votes: {measured}")


@pytest.mark.slow
def test_600_000_keys_and_sign_ins_are_ended_while_others_vote(
    start: Start, postgres: Postgres, people: list[Person], figure: Figure
) -> None:
    author, person, admin, *others = people
    with postgres.connect() as connection:
        post_ids = write_posts(connection, author, 1000)
        connection.execute(text("UPDATE users SET role = 'admin' WHERE id = :id"), {"id": admin.id})
        connection.execute(
            text(f"""
                INSERT INTO sessions (user_id, kind, expires_at)
                SELECT :id, CASE n % 6 WHEN 0 THEN 'login' ELSE 'api_key' END, 'infinity'
                FROM generate_series(1, {KEYS} * 6 / 5) AS n
            """),
            {"id": person.id},
        )
        connection.execute(
            text("""
                INSERT INTO api_keys (session_id, name, scopes, key_hash)
                SELECT id, 'key', '{read}', int8send(id) FROM sessions WHERE kind = 'api_key'
            """)
        )
        connection.execute(text("VACUUM ANALYZE"))
        server = start(**SERVERS)

        measured = delete_while_others_work(
            server, connection, others, post_ids, lambda: seconds_to_delete(server, person, "DELETE", "/sessions")
        )
        assert connection.scalar(text("SELECT count(*) FROM api_keys")) == KEYS
        figure(f"R20: {KEYS // 5:,} sign-ins ended: {measured}")

        body = {"is_active": False}
        measured = delete_while_others_work(
            server, connection, others, post_ids,
            lambda: seconds_to_delete(server, admin, "PATCH", f"/users/{person.id}", body),
        )  # fmt: skip

        assert httpx2.get(f"{server.url}/users/me", headers=person.headers).status_code == 401
        assert connection.scalar(text("SELECT count(*) FROM api_keys")) == 0
    figure(f"R20: {KEYS:,} keys ended by disabling their account: {measured}")
