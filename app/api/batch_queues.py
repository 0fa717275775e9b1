"""Batch queues: concurrent items of one kind share one database round trip.

There is a queue for page reads, votes, API keys, tokens without a session, health checks, and last-seen updates.
This module connects services with `database.batcher`, which forms the batches, and measures them.
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

# Maximum delay of `last_seen_at` in the database.
SEEN_PRECISION_SECONDS = 60


class _Entry(NamedTuple, Generic[Item]):
    """An item, the time of its submission, and the query log of its request."""

    item: Item
    submitted_at: float
    query_log: query_log.QueryLog | None


class BatchQueue(Generic[Item, Outcome]):
    """A `Batcher` with metrics, whose batches appear in the query log of each request."""

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
        self._batcher: Batcher[_Entry[Item], Outcome] = Batcher(
            self._run_batch,
            connect,
            reads=reads,
            max_batch=get_settings().max_batch,
            max_waiting=get_settings().max_waiting,
            order_key=order_key and (lambda entry: order_key(entry.item)),
        )

    async def submit(self, item: Item) -> Outcome:
        """Wait for the outcome of an item.

        Raises the exception that is its outcome, or `Overloaded`.
        """
        return await self._batcher.submit(_Entry(item, time.perf_counter(), query_log.current()))

    async def drain(self) -> None:
        """Finish all items queued in this event loop, and refuse new ones meanwhile."""
        await self._batcher.drain()

    def _run_batch(self, connection: Connection, entries: Sequence[_Entry[Item]]) -> Sequence[Outcome | Exception]:
        began_at = time.perf_counter()
        with query_log.recording() as queries:
            try:
                return self._run(connection, [entry.item for entry in entries])
            finally:
                waited = [began_at - entry.submitted_at for entry in entries]
                self._metrics.observe_batch(waited, time.perf_counter() - began_at)
                for entry, waited_seconds in zip(entries, waited, strict=True):
                    if entry.query_log is not None:
                        entry.query_log.batches.append(
                            query_log.Batch(self._name, len(entries), waited_seconds, queries)
                        )


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A ballot, and its idempotency key, if any."""

    ballot: vote.Ballot
    idempotent: idempotency.Request | None = None


@lru_cache
def page_reads() -> BatchQueue[feed.PageRequest, feed.PageResponse]:
    """Return the queue of page and post reads; these use the replica, if there is one."""
    replica = get_replica()
    return BatchQueue("pages", replica.first(feed.read) if replica else feed.read, at_once, reads=True)


@lru_cache
def votes() -> BatchQueue[VoteRequest, vote.Cast | idempotency.StoredResponse]:
    """Return the queue of votes. Votes of one user on one post keep their order."""
    return BatchQueue("votes", _cast, at_once, order_key=lambda request: request.ballot.pair)


@lru_cache
def api_keys() -> BatchQueue[bytes, api_key.Grant]:
    """Return the queue of API key lookups, by digest, for keys that are not cached."""
    return BatchQueue("api_keys", api_key.look_up, at_once)


@lru_cache
def sessionless_tokens() -> BatchQueue[AccessToken, AccessToken]:
    """Return the queue of tokens that name no session.

    It is used with `TUTORIAL_DEFAULTS` only.
    """
    return BatchQueue("sessionless_tokens", sessionless.admit, at_once)


@lru_cache
def health_checks() -> BatchQueue[None, schema_version.Health]:
    """Return the queue of checks that the database responds and is migrated."""
    return BatchQueue("health_checks", schema_version.check, at_once, reads=True)


@lru_cache
def last_seen_updates() -> BatchQueue[int, None]:
    """Return the queue of last-seen updates, by session id."""
    precision = timedelta(seconds=SEEN_PRECISION_SECONDS)
    return BatchQueue("last_seen", lambda connection, ids: session.see(connection, ids, precision), at_once)


async def drain() -> None:
    """Finish all queued items of all queues."""
    for queue in (api_keys(), sessionless_tokens(), page_reads(), votes(), health_checks(), last_seen_updates()):
        await queue.drain()


def _cast(
    connection: Connection, requests: Sequence[VoteRequest]
) -> Sequence[vote.Cast | idempotency.StoredResponse | Exception]:
    """Cast a batch of ballots.

    First cast the ballots with an idempotency key, in one transaction with their stored responses. Then cast all others
    in one statement, which commits as it ends. In this order a batch can run again after a failure, because the stored
    responses are replayed.
    """
    outcomes: dict[int, vote.Cast | idempotency.StoredResponse | Exception] = {}
    if keyed := [request.ballot for request in requests if request.idempotent is not None]:
        with writing() as transaction:
            vote.lock(transaction, keyed)
            for index, request in enumerate(requests):
                if request.idempotent is not None:
                    outcomes[index] = _cast_once(transaction, request.ballot, request.idempotent)
    indexes = [index for index, request in enumerate(requests) if request.idempotent is None]
    if indexes:
        cast = vote.cast(connection, [requests[index].ballot for index in indexes])
        outcomes |= zip(indexes, cast, strict=True)
    return [outcomes[index] for index in range(len(requests))]


def _cast_once(
    connection: Connection, ballot: vote.Ballot, idempotent: idempotency.Request
) -> idempotency.StoredResponse | Exception:
    """Cast the ballot and store its response.

    A refused ballot changes and stores nothing.
    """

    def effect() -> idempotency.StoredResponse:
        (outcome,) = vote.cast(connection, [ballot])
        if isinstance(outcome, Exception):
            raise outcome
        return idempotency.StoredResponse(201, vote.counted(ballot, outcome).model_dump_json().encode())

    try:
        vote.authenticate(connection, ballot)  # Replay a stored response only if the caller's session is still valid.
        return idempotency.run_once(connection, idempotent, effect)
    except DomainError as refusal:
        return refusal
