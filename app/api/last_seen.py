"""Last-seen updates: one per session and minute at most, outside of requests."""

import asyncio
import logging
import math
import time
from collections import OrderedDict

from app.api.batch_queues import SEEN_PRECISION_SECONDS, last_seen_updates
from app.observability import query_log
from app.security.access_tokens import AccessToken

logger = logging.getLogger("app.lanes")
# An entry takes about 200 bytes, so all take at most 2 MB.
MAX_SEEN_REMEMBERED = 10_000


# Time of this process's last update of each session, by the monotonic clock; the latest last.
_updated_at: OrderedDict[int, float] = OrderedDict()
_tasks: set[asyncio.Task[None]] = set()


def note_seen(token: AccessToken) -> None:
    """Start a last-seen update, unless one is within `SEEN_PRECISION_SECONDS`.

    The request does not wait for it. A failed update is only logged, because the next one follows a minute later.
    """
    now = time.monotonic()
    # Ignore the age of a token from the future: a clock jumped back.
    is_fresh = 0 <= time.time() - token.issued_at < SEEN_PRECISION_SECONDS
    if is_fresh or now - _updated_at.get(token.session_id, -math.inf) < SEEN_PRECISION_SECONDS:
        return
    _updated_at[token.session_id] = now
    _updated_at.move_to_end(token.session_id)
    if len(_updated_at) > MAX_SEEN_REMEMBERED:
        _updated_at.popitem(last=False)
    task = asyncio.get_running_loop().create_task(_update(token.session_id))
    _tasks.add(task)  # The event loop keeps only a weak reference.
    task.add_done_callback(_tasks.discard)


async def _update(session_id: int) -> None:
    query_log.begin()  # A log of its own, because the request does not wait for this query.
    try:
        await last_seen_updates().submit(session_id)
    except Exception as error:
        logger.warning("failed to update last_seen_at: %s", type(error).__name__)
