"""The lanes: who waits for a reading, a vote or a sign of life shares one round trip; so do sessions that were seen.

Here batches meet services, and are measured; how a batch is made is database/batcher.py's, what is asked of the
database the services'.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Generic, NamedTuple

from sqlalchemy import Connection

from app.config import get_settings
from app.database import schema_version
from app.database.batcher import Batcher, Item, Outcome
from app.database.replica import get_replica
from app.database.sessions import at_once, writing
from app.errors import DomainError
from app.observability import metrics, query_log
from app.security.access_tokens import AccessToken
from app.services import api_key, feed, idempotency, session, sessionless, vote

# How far behind the time in the database may be at which a session was seen last.
SEEN_PRECISION_SECONDS = 60


class _Asked(NamedTuple, Generic[Item]):
    """An item, when it came, and where its request notes what it asked of the database."""

    item: Item
    asked_at: float
    query_log: query_log.QueryLog | None


class BatchQueue(Generic[Item, Outcome]):
    """A `Batcher` whose turns are counted and timed, and noted for each request that shared them."""

    def __init__(
        self,
        name: str,
        run: Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]],
        connect: Callable[[], AbstractContextManager[Connection]],
        *,
        reads: bool = False,
        order_key: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._name = name
        self._run = run
        self._metrics = metrics.BatchQueue(name)
        self._batcher: Batcher[_Asked[Item], Outcome] = Batcher(
            self._turn,
            connect,
            reads=reads,
            max_batch=get_settings().max_batch,
            max_waiting=get_settings().max_waiting,
            order_key=order_key and (lambda asked: order_key(asked.item)),
        )

    async def submit(self, item: Item) -> Outcome:
        """Wait for the item's outcome. Raises what `run` gave or raised for it, or `Overloaded`."""
        return await self._batcher.submit(_Asked(item, time.perf_counter(), query_log.current()))

    async def drain(self) -> None:
        """Answer everyone who waits in this event loop; until that is done, newcomers are refused."""
        await self._batcher.drain()

    def _turn(self, connection: Connection, everyone: Sequence[_Asked[Item]]) -> Sequence[Outcome | Exception]:
        began_at = time.perf_counter()
        with query_log.recording() as noted:
            try:
                return self._run(connection, [asked.item for asked in everyone])
            finally:
                waited = [began_at - asked.asked_at for asked in everyone]
                self._metrics.turn(waited, time.perf_counter() - began_at)
                for asked, waited_seconds in zip(everyone, waited, strict=True):
                    if asked.query_log is not None:
                        asked.query_log.batches.append(
                            query_log.Batch(self._name, len(everyone), waited_seconds, noted)
                        )


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A ballot, and what makes it count once however often it is sent."""

    ballot: vote.Ballot
    idempotent: idempotency.Request | None = None


@lru_cache
def page_reads() -> BatchQueue[feed.PageRequest, feed.PageResponse]:
    """Pages and posts; from the replica, if there is one."""
    replica = get_replica()
    return BatchQueue("pages", replica.first(feed.read) if replica else feed.read, at_once, reads=True)


@lru_cache
def votes() -> BatchQueue[VoteRequest, vote.Cast | idempotency.StoredResponse]:
    """Votes; two of the same user on the same post keep their order."""
    return BatchQueue("votes", _cast, at_once, order_key=lambda request: request.ballot.pair)


@lru_cache
def api_keys() -> BatchQueue[bytes, api_key.Grant]:
    """Digests of API keys that this process has not met."""
    return BatchQueue("api_keys", api_key.look_up, at_once)


@lru_cache
def sessionless_tokens() -> BatchQueue[AccessToken, AccessToken]:
    """Tokens that name no session. Without `TUTORIAL_DEFAULTS` there are none."""
    return BatchQueue("sessionless_tokens", sessionless.admit, at_once)


@lru_cache
def health_checks() -> BatchQueue[None, schema_version.Health]:
    """Questions whether the database is there and migrated."""
    return BatchQueue("health_checks", schema_version.check, at_once, reads=True)


@lru_cache
def last_seen_updates() -> BatchQueue[int, None]:
    """Sessions, by id, that are in use."""
    precision = timedelta(seconds=SEEN_PRECISION_SECONDS)
    return BatchQueue("last_seen", lambda connection, ids: session.see(connection, ids, precision), at_once)


async def drain() -> None:
    """Answer everyone who waits."""
    for queue in (api_keys(), sessionless_tokens(), page_reads(), votes(), health_checks(), last_seen_updates()):
        await queue.drain()


def _cast(
    connection: Connection, requests: Sequence[VoteRequest]
) -> Sequence[vote.Cast | idempotency.StoredResponse | Exception]:
    """All ballots in one statement; before it, those whose answers are to be kept, in one transaction with these.

    In this order a batch can run again after it failed: what is kept answers by itself, and the statement, which is
    committed as it ends, comes last.
    """
    outcomes: dict[int, vote.Cast | idempotency.StoredResponse | Exception] = {}
    if kept := [request.ballot for request in requests if request.idempotent is not None]:
        with writing() as transaction:
            vote.lock(transaction, kept)
            for place, request in enumerate(requests):
                if request.idempotent is not None:
                    outcomes[place] = _cast_once(transaction, request.ballot, request.idempotent)
    places = [place for place, request in enumerate(requests) if request.idempotent is None]
    if places:
        cast = vote.cast(connection, [requests[place].ballot for place in places])
        outcomes |= zip(places, cast, strict=True)
    return [outcomes[place] for place in range(len(requests))]


def _cast_once(
    connection: Connection, ballot: vote.Ballot, idempotent: idempotency.Request
) -> idempotency.StoredResponse | Exception:
    """Cast the ballot and keep the answer with it. A ballot that is refused has changed nothing."""

    def effect() -> idempotency.StoredResponse:
        (outcome,) = vote.cast(connection, [ballot])
        if isinstance(outcome, Exception):
            raise outcome
        return idempotency.StoredResponse(201, vote.counted(ballot, outcome).model_dump_json().encode())

    try:
        vote.authenticate(connection, ballot)  # A kept answer, too, is for the living.
        return idempotency.run_once(connection, idempotent, effect)
    except DomainError as refusal:
        return refusal
