"""uvicorn's WebSocket protocol with a limit on what a client may send, and a bounded stop."""

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.server.http_protocol import LAST_MESSAGE_SECONDS

# All bytes of a client count, because each frame costs time, however short, and each ping is answered. Two messages of
# the maximum size fit in a burst.
MAX_BURST_BYTES = 32 * 1024
MAX_BYTES_PER_SECOND = 4 * 1024


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Disconnect clients that send too much, and those that do not read when the server stops."""

    allowed_bytes: float = MAX_BURST_BYTES
    counted_at: float = 0.0

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            now = asyncio.get_running_loop().time()
            regained = (now - self.counted_at) * MAX_BYTES_PER_SECOND
            self.allowed_bytes = min(MAX_BURST_BYTES, self.allowed_bytes + regained) - len(data)
            self.counted_at = now
            if self.allowed_bytes < 0:
                self.transport.abort()
                return
        super().data_received(data)
        if not self.handshake_initiated:  # Too many headers, or too long ones, for the parser of WebSockets.
            self.transport.abort()

    def shutdown(self) -> None:
        super().shutdown()
        asyncio.get_running_loop().call_later(LAST_MESSAGE_SECONDS, self.transport.abort)
