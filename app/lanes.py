"""The lanes: who waits for a reading, a vote or a sign of life shares one round trip; so do sessions that were seen.

Here batches meet services; how a batch is made is batching.py's, what is asked of the database the services'.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from sqlalchemy import Connection

from app.batching import Batcher
from app.config import get_settings
from app.database import at_once, writing
from app.errors import DomainError
from app.services import api_key, feed, health, idempotency, session, vote
from app.tokens import AccessToken

logger = logging.getLogger("app.lanes")

# How far behind the time in the database may be at which a session was seen last.
SEEN_PRECISION_SECONDS = 60
MOST_SEEN_REMEMBERED = 10_000


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
def api_keys() -> Batcher[bytes, api_key.Grant]:
    """Digests of API keys that this process has not met."""
    return Batcher(api_key.look_up, at_once, max_batch=get_settings().max_batch, max_waiting=get_settings().max_waiting)


@lru_cache
def health_checks() -> Batcher[None, health.Health]:
    """Questions whether the database is there and migrated."""
    settings = get_settings()
    return Batcher(health.check, at_once, reads=True, max_batch=settings.max_batch, max_waiting=settings.max_waiting)


@lru_cache
def sightings() -> Batcher[int, None]:
    """Sessions, by id, that are in use."""
    return Batcher(
        lambda connection, session_ids: session.see(connection, session_ids, timedelta(seconds=SEEN_PRECISION_SECONDS)),
        at_once,
        max_batch=get_settings().max_batch,
        max_waiting=get_settings().max_waiting,
    )


# When this process last told of a session (seconds since 1970), the latest last.
_told: OrderedDict[int, float] = OrderedDict()
_tellings: set[asyncio.Task[None]] = set()


def note_seen(token: AccessToken) -> None:
    """Have the database told that the session is in use, unless it was within `SEEN_PRECISION_SECONDS`.

    Nobody waits for it, and nothing fails with it: it is told again a minute later.
    """
    now = time.time()
    if now - max(token.issued_at, _told.get(token.session_id, 0)) < SEEN_PRECISION_SECONDS:
        return
    _told[token.session_id] = now
    _told.move_to_end(token.session_id)
    if len(_told) > MOST_SEEN_REMEMBERED:
        _told.popitem(last=False)
    telling = asyncio.get_running_loop().create_task(_tell(token.session_id))
    _tellings.add(telling)  # The loop itself would let it go.
    telling.add_done_callback(_tellings.discard)


async def _tell(session_id: int) -> None:
    try:
        await sightings().submit(session_id)
    except Exception as error:
        logger.warning("a session was seen and the database not told: %s", type(error).__name__)


async def drain() -> None:
    """Answer everyone who waits."""
    for lane in (api_keys(), readings(), votes(), health_checks(), sightings()):
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
