"""When a session was last used: the database is told once a minute, and no request waits for it."""

import asyncio
import logging
import math
import time
from collections import OrderedDict

from app.api.batch_queues import SEEN_PRECISION_SECONDS, last_seen_updates
from app.observability import query_log
from app.security.access_tokens import AccessToken

logger = logging.getLogger("app.lanes")
# An entry takes some 200 bytes, so all take at most 2 MB.
MAX_SEEN_REMEMBERED = 10_000


# When this process last told of a session, by the monotonic clock; the latest last.
_told: OrderedDict[int, float] = OrderedDict()
_tellings: set[asyncio.Task[None]] = set()


def note_seen(token: AccessToken) -> None:
    """Have the database told that the session is in use, unless it was within `SEEN_PRECISION_SECONDS`.

    No request waits for it or fails with it. A failed update is repeated a minute later.
    """
    now = time.monotonic()
    # A token from the future says nothing: a clock jumped back.
    is_fresh = 0 <= time.time() - token.issued_at < SEEN_PRECISION_SECONDS
    if is_fresh or now - _told.get(token.session_id, -math.inf) < SEEN_PRECISION_SECONDS:
        return
    _told[token.session_id] = now
    _told.move_to_end(token.session_id)
    if len(_told) > MAX_SEEN_REMEMBERED:
        _told.popitem(last=False)
    telling = asyncio.get_running_loop().create_task(_tell(token.session_id))
    _tellings.add(telling)  # The loop itself would let it go.
    telling.add_done_callback(_tellings.discard)


async def _tell(session_id: int) -> None:
    query_log.begin()  # Not the request's, which does not wait for it.
    try:
        await last_seen_updates().submit(session_id)
    except Exception as error:
        logger.warning("failed to update last_seen_at: %s", type(error).__name__)
