"""uvicorn's WebSocket protocol with a limit on what a client may send, and a bounded stop."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.server.http_protocol import LAST_MESSAGE_SECONDS

# The parser takes 14 µs for a frame, however short, and answers each ping.
MAX_FRAMES = 20
MAX_FRAMES_PER_SECOND = 10
# A packet of 256 KB can have 43,000 frames, so it is parsed in pieces.
PIECE_BYTES = 256
# How long a client that sends frames before the answer to its handshake is held, else it would come again at once.
EARLY_SECONDS = 1.0


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Disconnect clients that send too many frames, and those that do not read when the server stops."""

    allowed_frames: float = MAX_FRAMES
    counted_at: float = 0.0
    is_early = False

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            self.is_early = True  # Clients have to wait for the answer (RFC 6455, 4.1).
            self.transport.pause_reading()
            return
        for start in range(0, len(data), PIECE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + PIECE_BYTES])
        if not self.handshake_initiated:  # Too many headers, or too long ones, for the parser of WebSockets.
            self.transport.abort()

    def handle_events(self) -> None:
        now = asyncio.get_running_loop().time()
        regained = (now - self.counted_at) * MAX_FRAMES_PER_SECOND
        self.allowed_frames = min(MAX_FRAMES, self.allowed_frames + regained) - len(self.conn.events)
        self.counted_at = now
        if self.allowed_frames < 0:
            self.transport.abort()
        else:
            super().handle_events()

    async def run_asgi(self) -> None:
        """Run the application, unless the client floods: a handshake has queries, and opening a stream reads events."""
        if self.is_early:
            await asyncio.sleep(EARLY_SECONDS)
            self.transport.abort()
        else:
            await super().run_asgi()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.is_early and message["type"] == "websocket.accept":
            self.transport.abort()
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # Else uvicorn logs an error for each handshake that is refused.

    def shutdown(self) -> None:
        super().shutdown()
        asyncio.get_running_loop().call_later(LAST_MESSAGE_SECONDS, self.transport.abort)
