"""Delivery of webhooks: many requests at once in one thread, each bounded in time and bytes."""

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app import __version__
from app.errors import DomainError
from app.observability import metrics
from app.security import encryption
from app.webhooks import http_client, queue, signatures
from app.webhooks.queue import Claimed, Outcome

logger = logging.getLogger("app.webhooks")

# In each process. A webhook has one at a time.
MAX_REQUESTS = 64
PAUSE_SECONDS = 1
PAUSE_AFTER_FAILURE_SECONDS = 15
MAX_STOP_SECONDS = 1


@contextmanager
def delivering() -> Iterator[None]:
    """Queue and deliver in a thread during the block.

    Requests that run at its end are made again after their lease.
    """
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_work(stop)), name="webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(MAX_STOP_SECONDS)


async def _work(stop: threading.Event) -> None:
    requests: dict[asyncio.Task[None], int] = {}  # With the owners of their webhooks.
    pause = random.uniform(0, PAUSE_SECONDS)  # noqa: S311 - jitter, so that processes do not poll together.
    while not await asyncio.to_thread(stop.wait, pause):
        try:
            while await asyncio.to_thread(queue.fill) == queue.BATCH_EVENTS and not stop.is_set():
                pass
            claimed = await asyncio.to_thread(queue.claim, MAX_REQUESTS - len(requests), Counter(requests.values()))
        except (SQLAlchemyError, DomainError) as error:  # The database is unavailable or not migrated yet.
            logger.warning("webhooks paused: error=%s", type(error).__name__)
            pause = PAUSE_AFTER_FAILURE_SECONDS
            continue
        except Exception:
            logger.exception("webhooks paused")
            pause = PAUSE_AFTER_FAILURE_SECONDS
            continue
        requests |= {asyncio.create_task(deliver(each)): each.owner_id for each in claimed}
        pause = PAUSE_SECONDS * random.uniform(0.5, 1)  # noqa: S311
        if requests:
            done, _ = await asyncio.wait(requests, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            requests = {request: owner_id for request, owner_id in requests.items() if request not in done}
            pause = 0 if done else pause
    for request in requests:
        request.cancel()


async def deliver(delivery: Claimed) -> None:
    """Make one attempt, and record it."""
    outcome = await attempt(delivery)
    metrics.webhook_attempt(is_success=outcome.is_success)
    try:
        await asyncio.to_thread(queue.settle, delivery, outcome)
    except (SQLAlchemyError, DomainError) as error:  # It is delivered again after its lease.
        logger.warning("webhook attempt not recorded: delivery=%d error=%s", delivery.id, type(error).__name__)


async def attempt(delivery: Claimed) -> Outcome:
    """Send the delivery once."""
    began_at = time.monotonic()
    code: int | None = None
    failure: str | None = None
    try:
        secret, _ = encryption.decrypt(delivery.secret)
        body = delivery.body.encode()
        signed = signatures.headers(secret.decode(), f"msg_{delivery.id}", int(time.time()), body)
        about = {"Content-Type": "application/json", "User-Agent": f"social-posts/{__version__}"}
        code = await http_client.post(delivery.url, about | signed, body)
    except http_client.NotDelivered as error:
        failure = str(error)
    except encryption.Undecryptable:
        failure = "the secret cannot be decrypted; create the webhook anew"
    except Exception:  # Else the delivery would be claimed again after each lease, without a pause or an end.
        logger.exception("webhook attempt failed: delivery=%d", delivery.id)
        failure = "the server could not send the request"
    return Outcome(int((time.monotonic() - began_at) * 1000), code, failure)
