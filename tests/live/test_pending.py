"""Messages that wait for a slow client."""

import asyncio
import time

import pytest
from sqlalchemy import Connection, text

from app.database.event_log import Position
from app.live import stream
from app.live.topics import EventId
from app.security.access_tokens import AccessToken
from app.services.live.happenings import Happening


@pytest.mark.parametrize(("waited_seconds", "first"), [(0.0, "its content"), (2.5, None)])
def test_a_message_that_waited_is_read_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, waited_seconds: float, first: str | None
) -> None:
    """Its comment is not in the log any more, so the stream sends a ping instead."""
    monkeypatch.setattr(stream, "PING_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(stream, "MAX_STREAM_SECONDS", (60.0, 60.0))  # The client of other tests has none.
    end = connection.scalar(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
    assert isinstance(end, int)

    async def first_text() -> str | None:
        shared = stream.Shared()
        shared.event_id = EventId(Position(end - 1, 0), int(time.time()))
        token = AccessToken(1, 1, int(time.time()) + 60)
        slow = stream.Stream(shared, token, None, is_reset=False)
        slow.keys = frozenset(["post:1"])
        slow.begin(Position(end, 0))
        read_at = time.monotonic() - waited_seconds
        slow.take(Happening(Position(end, 1), "its content", frozenset(["post:1"]), frozenset(), read_at))
        assert slow.pending
        return (await anext(slow.messages())).text

    assert asyncio.run(first_text()) == first
