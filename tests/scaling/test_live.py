"""Live streams of servers that share a database through PgBouncer, and read from a replica."""

import secrets
from pathlib import Path

import httpx2
import pytest

from tests.figures import Figure
from tests.fixtures import Person
from tests.live.listening import Message, listening
from tests.scaling.conftest import Replicated, dsn
from tests.scaling.pgbouncer import needs_pgbouncer, pgbouncer
from tests.scaling.test_pooler import NOTHING, left_behind
from tests.scaling.test_servers import Start, wait_until_it_reads_from_the_replica

pytestmark = [pytest.mark.slow, needs_pgbouncer]

ROUNDS = 50


def test_streams_lose_nothing_behind_a_pooler_and_beside_a_replica(
    start: Start, people: list[Person], primary: Replicated, replica: Replicated, folder: Path, figure: Figure
) -> None:
    reader, *writers = people  # Several, because one notifies an account of 20 comments at most.
    written: list[int] = []
    arrived: list[Message] = []
    last_event_id: str | None = None
    with pgbouncer(folder / f"pgbouncer-{secrets.token_hex(4)}", primary.url) as pooler:
        settings = {
            "DATABASE_URL": dsn(pooler),
            "DATABASE_BEHIND_POOLER": "true",
            "DATABASE_REPLICA_URL": dsn(replica.url),
            "WORKERS": "2",
        }
        here, there = start(**settings), start(**settings)
        wait_until_it_reads_from_the_replica(here, reader)
        with httpx2.Client(base_url=there.url) as client:

            def comment() -> None:
                writer = writers[len(written) % len(writers)]
                path, content = f"/posts/{reader.id}/comments", {"content": "Here."}
                sent = client.post(path, json=content, headers=writer.headers)
                written.append(sent.raise_for_status().json()["id"])

            for _ in range(ROUNDS):
                query = f"posts={reader.id}&topics=me"
                with listening(here.url, reader, query, last_event_id=last_event_id) as listener:
                    comment()
                    listener.wait_for(lambda message: about(message) == ("comment", written[-1]))
                    listener.wait_for(lambda message: about(message) == ("notification", written[-1]))
                arrived += listener.messages
                last_event_id = listener.last_event_id
                comment()  # Which only the next stream can have.
        with listening(here.url, reader, f"posts={reader.id}") as listener:
            httpx2.put(f"{there.url}/posts/{reader.id}/vote", headers=reader.headers).raise_for_status()
            listener.wait_for(lambda message: message["type"] == "post" and message["post"]["votes"] == 1)
            httpx2.post(f"{there.url}/logout", headers=reader.headers).raise_for_status()
            listener.wait_for_end()
        assert left_behind(pooler) == NOTHING

    for kind in ("comment", "notification"):
        assert [about(message)[1] for message in arrived if about(message)[0] == kind] == written[:-1]
    assert not [message for message in arrived if message["type"] == "reset"]
    figure(f"behind PgBouncer and beside a replica: {len(written)} comments, {ROUNDS} connections, none lost or twice")


def about(message: Message) -> tuple[str, int | None]:
    """Return the kind of a message, and the comment that it is about, if any."""
    match message:
        case {"type": "comment", "comment": comment}:
            return "comment", comment["id"]
        case {"type": "notification", "notification": notification}:
            return "notification", notification["comment_id"]
    return message["type"], None
