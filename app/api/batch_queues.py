"""Batch queues: concurrent items of one kind share one database round trip.

There are queues for bounded and for unbounded page reads, threads of comments, votes for posts and for comments, API
keys, tokens without a session, health checks, and last-seen updates.
This module connects services with `database.batcher`, which forms the batches.
"""

from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from functools import lru_cache

from sqlalchemy import Connection

from app.config import get_settings
from app.database import schema_version
from app.database.batcher import BatchQueue, Item, Outcome
from app.database.replica import Run, get_replicas
from app.database.sessions import at_once
from app.security.access_tokens import AccessToken
from app.services import api_key, comment, feed, session, sessionless, vote

# Maximum delay of `last_seen_at` in the database.
SEEN_PRECISION_SECONDS = 60


def _queue(
    name: str,
    run: Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]],
    *,
    reads: bool = False,
    order_key: Callable[[Item], Hashable] | None = None,
    share_key: Callable[[Item], Hashable] | None = None,
    caller: Callable[[Item], Hashable] | None = None,
) -> BatchQueue[Item, Outcome]:
    settings = get_settings()
    return BatchQueue(
        name,
        run,
        at_once,
        reads=reads,
        order_key=order_key,
        share_key=share_key,
        caller=caller,
        max_seconds=settings.database_statement_timeout_seconds,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
    )


@lru_cache
def page_reads() -> BatchQueue[feed.PageRequest, feed.PageResponse]:
    """Return the queue of bounded page and post reads.

    They use the replica, if there is one.
    """
    return _queue("pages", _from_replica(0), reads=True)


@lru_cache
def unbounded_page_reads() -> BatchQueue[feed.PageRequest, feed.PageResponse]:
    """Return the queue of searches and other page reads that may take long.

    They run one after the other.
    """
    return _queue(
        "unbounded_pages",
        _from_replica(1),
        reads=True,
        share_key=lambda request: request.query,
        caller=lambda request: request.caller,
    )


def _from_replica(number: int) -> Run[feed.PageRequest, feed.PageResponse]:
    replicas = get_replicas()
    return replicas[number].first(feed.read) if replicas else feed.read


async def read_page(request: feed.PageRequest) -> feed.PageResponse:
    """Read a page or a post in the next batch of its queue.

    Raises what the batch raises for it, or `Overloaded`.
    """
    return await (page_reads() if request.is_bounded else unbounded_page_reads()).submit(request)


@lru_cache
def threads() -> BatchQueue[comment.ThreadRequest, comment.Thread]:
    """Return the queue of threads of comments."""
    return _queue("threads", comment.read, reads=True)


@lru_cache
def votes() -> BatchQueue[vote.Ballot, vote.Cast]:
    """Return the queue of votes. Votes of one user on one post keep their order."""
    return _queue("votes", vote.cast, order_key=lambda ballot: ballot.pair)


@lru_cache
def comment_votes() -> BatchQueue[vote.Ballot, vote.Cast]:
    """Return the queue of votes for comments."""
    return _queue("comment_votes", vote.cast_for_comments, order_key=lambda ballot: ballot.pair)


@lru_cache
def api_keys() -> BatchQueue[bytes, api_key.Grant]:
    """Return the queue of API key lookups, by digest, for keys that are not cached."""
    return _queue("api_keys", api_key.look_up)


@lru_cache
def sessionless_tokens() -> BatchQueue[AccessToken, AccessToken]:
    """Return the queue of tokens that name no session.

    It is used with `TUTORIAL_DEFAULTS` only.
    """
    return _queue("sessionless_tokens", sessionless.admit)


@lru_cache
def health_checks() -> BatchQueue[None, schema_version.Health]:
    """Return the queue of checks that the database responds and is migrated."""
    return _queue("health_checks", schema_version.check, reads=True)


@lru_cache
def last_seen_updates() -> BatchQueue[int, None]:
    """Return the queue of last-seen updates, by session id."""
    precision = timedelta(seconds=SEEN_PRECISION_SECONDS)
    return _queue("last_seen", lambda connection, ids: session.see(connection, ids, precision))


async def drain() -> None:
    """Finish all queued items of all queues."""
    for queue in (
        api_keys(), sessionless_tokens(), page_reads(), unbounded_page_reads(), threads(), votes(), comment_votes(),
        health_checks(), last_seen_updates(),
    ):  # fmt: skip
        await queue.drain()
