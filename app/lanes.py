"""The lanes of the hot requests: who waits for a reading, a vote or a sign of life shares one round trip.

Here batches meet services; how a batch is made is batching.py's, what is asked of the database the services'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection

from app.batching import Batcher
from app.config import get_settings
from app.database import at_once, writing
from app.errors import DomainError
from app.services import feed, health, idempotency, vote


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A ballot, and what makes it count once however often it is sent."""

    ballot: vote.Ballot
    once: idempotency.Request | None = None


@lru_cache
def readings() -> Batcher[feed.Question, feed.Reading]:
    """Pages and posts."""
    settings = get_settings()
    return Batcher(feed.read, at_once, reads=True, max_batch=settings.max_batch, max_waiting=settings.max_waiting)


@lru_cache
def votes() -> Batcher[VoteRequest, vote.Cast | idempotency.Answer]:
    """Votes; two of the same user on the same post keep their order."""
    settings = get_settings()
    return Batcher(
        _cast,
        at_once,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        order_key=lambda request: request.ballot.pair,
    )


@lru_cache
def health_checks() -> Batcher[None, health.Health]:
    """Questions whether the database is there and migrated."""
    settings = get_settings()
    return Batcher(health.check, at_once, reads=True, max_batch=settings.max_batch, max_waiting=settings.max_waiting)


async def drain() -> None:
    """Answer everyone who waits."""
    for lane in (readings(), votes(), health_checks()):
        await lane.drain()


def _cast(
    connection: Connection, requests: Sequence[VoteRequest]
) -> Sequence[vote.Cast | idempotency.Answer | Exception]:
    """All ballots in one statement; before it, those whose answers are to be kept, in one transaction with these.

    In this order a batch can run again after it failed: what is kept answers by itself, and the statement, which is
    committed as it ends, comes last.
    """
    outcomes: dict[int, vote.Cast | idempotency.Answer | Exception] = {}
    if kept := [request.ballot for request in requests if request.once is not None]:
        with writing() as transaction:
            vote.lock(transaction, kept)
            for place, request in enumerate(requests):
                if request.once is not None:
                    outcomes[place] = _cast_once(transaction, request.ballot, request.once)
    places = [place for place, request in enumerate(requests) if request.once is None]
    if places:
        cast = vote.cast(connection, [requests[place].ballot for place in places])
        outcomes |= zip(places, cast, strict=True)
    return [outcomes[place] for place in range(len(requests))]


def _cast_once(
    connection: Connection, ballot: vote.Ballot, once: idempotency.Request
) -> idempotency.Answer | Exception:
    """Cast the ballot and keep the answer with it. A ballot that is refused has changed nothing."""

    def effect() -> idempotency.Answer:
        (outcome,) = vote.cast(connection, [ballot])
        if isinstance(outcome, Exception):
            raise outcome
        return idempotency.Answer(201, vote.counted(ballot, outcome).model_dump_json().encode())

    try:
        vote.authenticate(connection, ballot)  # A kept answer, too, is for the living.
        return idempotency.once(connection, once, effect)
    except DomainError as refusal:
        return refusal
