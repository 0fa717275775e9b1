"""uvicorn's HTTP protocol with additional limits and single-write responses.

The limits apply before any middleware runs.
"""

import secrets
import time
from asyncio import TimerHandle, Transport, timeout
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.config import get_settings
from app.errors import BodyTooLarge
from app.middleware.cors import VARY
from app.middleware.problem_details import problem_response
from app.middleware.security_headers import HEADERS

# Twice the limit of `HeadLimit`, so that a request a little above that limit gets its response with all headers.
MAX_UNFINISHED_BYTES = 64 * 1024

# A body may cost twice MAX_BODY_BYTES, or MEDIA_MAX_BYTES for an upload, before this protocol refuses it. BodyLimit
# refuses it earlier and with all headers, but only while a route reads it. Each piece counts as at least 128 bytes,
# because the parser's work is per piece: 1 MB in chunks of one byte took 0.65 s of a core.
MIN_PIECE_BYTES = 128

# After a response with `Connection: close`, the rest of the request is read and dropped, so that the client can read
# the response: closing a socket with unread bytes resets the connection. nginx waits as long (`lingering_time`).
MAX_DRAINED_BYTES = 16_000_000
DRAIN_SECONDS = 30
# Pause between two reads of at most 256 KB: 12 MB/s per connection, so that other requests have priority.
DRAIN_PAUSE_SECONDS = 0.02
# Maximum connections that a worker drains concurrently. Further ones are closed at once.
MAX_DRAINED_CONNECTIONS = 100

# A client that sends no part of its body for this long is disconnected. The proxies of deploy/ wait 10 s.
STALLED_SECONDS = 30

# The only path with streams and WebSockets. On others, `Upgrade` is ignored.
LIVE_PATH = b"/live"

# One packet of 256 KB can hold 14,000 requests, and each takes about 2 KB while it is queued.
MAX_PIPELINED_REQUESTS = 100

# Longer response bodies are written in pieces of this size, each when the transport has room, because it copies what it
# cannot send. 64 KB is the transport's own high-water mark.
PIECE_BYTES = 64 * 1024
# Maximum unsent bytes of such bodies in a worker, per caller (as in RateLimit) and in total. Past either limit, the
# client that has read nothing for the longest time is disconnected.
MAX_UNSENT_BYTES_PER_CALLER = 4_000_000
MAX_UNSENT_BYTES = 64_000_000

# How long a stopping server waits for a request that a client sent before it could notice the stop.
LAST_REQUEST_SECONDS = 0.5

# How long a stopping server waits for a client to read the end of its stream.
LAST_MESSAGE_SECONDS = 2.0

# Characters that no header may contain. Line breaks are counted instead: exactly one per header.
_CONTROLS = bytes({*range(32), 127} - {*b"\t\r\n"})
_BODILESS = frozenset({204, 304})


class Exchange:
    """One request and its response, with limits on what a slow client can hold.

    A complete response is sent in one write. uvicorn writes the head separately, which costs a system call and a packet
    more: 20 µs of CPU, 7 % of a page's at 64 connections (docs/decisions/0013). The head is held until the first part
    of the body. uvicorn's cycle sends every response that is not an ordinary one.
    """

    cycle: RequestResponseCycle  # Set once uvicorn has created it, which is before it calls the application.
    head: Message | None = None
    # For a body that is sent in pieces: the bytes not yet written, and the time of the last write.
    unsent_bytes = 0
    moved_at = 0.0
    # Whether to close the connection after the rest of the request's body has arrived.
    is_to_be_drained = False

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive_from_uvicorn, self.send_to_uvicorn = receive, send
        await self.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        cycle = self.cycle
        if cycle.more_body and not cycle.message_event.is_set():
            try:
                async with timeout(STALLED_SECONDS):
                    return await self.receive_from_uvicorn()
            except TimeoutError:
                cycle.transport.close()  # So that the next line returns a disconnect.
        return await self.receive_from_uvicorn()

    async def send(self, message: Message) -> None:
        cycle = self.cycle
        if message["type"] == "http.response.start" and not cycle.response_started:
            self.head = message
            return
        if cycle.flow.write_paused or cycle.transport.is_closing():
            await self._drained()
        head, self.head = self.head, None
        if head is not None:
            if cycle.waiting_for_100_continue and cycle.more_body:
                # The client may now send or omit its body (RFC 9110, 10.1.1), so what follows is ambiguous.
                cycle.keep_alive = False
            if self._send_whole(head, message):
                return
            await self.send_to_uvicorn(head)
        if message["type"] == "http.response.body":
            message = await self._send_in_pieces(message)
            if not cycle.keep_alive and cycle.more_body and not message.get("more_body", False):
                cycle.keep_alive = self.is_to_be_drained = True  # `Protocol` closes the connection, not uvicorn.
        await self.send_to_uvicorn(message)

    @property
    def caller(self) -> object:
        """The caller to whom `RateLimit` assigned the request; None without rate limits."""
        return self.cycle.scope["state"].get("caller")

    async def _drained(self) -> None:
        """Wait until the transport has room, and detect a disconnect.

        uvicorn reports a disconnect only to the newest of pipelined requests.
        """
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.transport.is_closing():
            cycle.disconnected = True
            cycle.message_event.set()

    async def _send_in_pieces(self, message: Message) -> Message:
        """Send a long body except its last piece, which is returned.

        The pieces share the body's memory.
        """
        rest = memoryview(message.get("body", b""))
        if len(rest) <= PIECE_BYTES or self.cycle.scope["method"] == "HEAD":
            return message
        try:
            while len(rest) > PIECE_BYTES and not self.cycle.disconnected:
                self.unsent_bytes, self.moved_at = len(rest), time.monotonic()
                _sending.add(self)
                if self.caller is not None:
                    of_caller = [exchange for exchange in _sending if exchange.caller == self.caller]
                    _disconnect_stalled(of_caller, MAX_UNSENT_BYTES_PER_CALLER)
                _disconnect_stalled(_sending, MAX_UNSENT_BYTES)
                await self.send_to_uvicorn(
                    {"type": "http.response.body", "body": rest[:PIECE_BYTES], "more_body": True}
                )
                await self._drained()
                rest = rest[PIECE_BYTES:]
        finally:
            _sending.discard(self)
        return {"type": "http.response.body", "body": rest, "more_body": message.get("more_body", False)}

    def _send_whole(self, head: Message, message: Message) -> bool:
        """Send the response in one write if it is complete; return whether it was.

        It must have a length and keep the connection open.
        """
        cycle = self.cycle
        if (
            message["type"] != "http.response.body"
            or message.get("more_body", False)
            or cycle.scope["method"] == "HEAD"
            or not cycle.keep_alive
            or cycle.disconnected
            or cycle.flow.write_paused
            or len(message.get("body", b"")) > PIECE_BYTES
        ):
            return False
        status, headers = head["status"], [*cycle.default_headers, *head.get("headers", ())]
        body = message.get("body", b"")
        if (b"content-length", b"%d" % len(body)) not in headers and (body or status not in _BODILESS):
            return False
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        text = b"".join(lines)
        breaks = len(headers) + 2
        if (
            text.count(b"\r") != breaks
            or text.count(b"\n") != breaks
            or len(text.translate(None, _CONTROLS)) != len(text)
            or b"\r\nconnection:" in text
            or b"\r\ntransfer-encoding:" in text
        ):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(text + body)
        cycle.message_event.set()
        cycle.on_response()
        return True


# Those that are sending a long body.
_sending: set[Exchange] = set()


def _disconnect_stalled(exchanges: Collection[Exchange], max_bytes: int) -> None:
    """Abort the most stalled responses until the others fit into `max_bytes`."""
    excess_bytes = sum(exchange.unsent_bytes for exchange in exchanges) - max_bytes
    if excess_bytes > 0 and len(exchanges) > 1:
        for stalled in sorted(exchanges, key=lambda exchange: exchange.moved_at)[:-1]:
            _sending.discard(stalled)
            stalled.cycle.transport.abort()
            excess_bytes -= stalled.unsent_bytes
            if excess_bytes <= 0:
                break


class _PastHead:
    """Parser callbacks that ignore the first head.

    For a parser that starts at the body of a request.
    """

    is_past_head = False

    def __init__(self, protocol: "Protocol") -> None:
        self.protocol = protocol
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if self.is_past_head:
            self.protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.is_past_head:
            self.protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_past_head:
            self.protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.is_past_head:
            self.protocol.on_headers_complete()


class BodyFlow(FlowControl):
    """Flow control that reads no further part of a body while one is waiting to be received.

    uvicorn resumes at every call of `receive`, also if that returns what has already arrived. So each upload took
    another 256 KB of memory.
    """

    def __init__(self, protocol: "Protocol") -> None:
        super().__init__(protocol.transport)
        self.protocol = protocol

    def resume_reading(self) -> None:
        cycle = self.protocol.cycle
        if cycle is None or cycle.response_complete or not cycle.body:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on heads, problem responses and graceful stop.

    uvicorn buffers a head, trailer or chunk extension without a limit. It answers invalid HTTP in plain text. When it
    stops, it closes idle connections at once and can lose a request that is on its way.
    """

    # Of the newest request. uvicorn sets its address.
    exchange: Exchange
    url = b""
    unfinished_bytes = 0
    is_stopping = False
    # Whether the end of the request's body has yet to arrive, and the cost of the body so far.
    is_body_due = False
    body_cost_bytes = 0
    # Whether the parser takes this request for an upgrade that is ignored, as RFC 9110 allows. Only WebSockets of one
    # path are not ignored.
    is_upgrade_ignored = False
    is_websocket = False
    # Whether received bytes are dropped, and how many were.
    is_drained = False
    drained_bytes = 0
    drain_timer: TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.application = self.app
        self.max_body_cost_bytes = 0
        # Else uvicorn would leave every request with `Upgrade: websocket` to it, also those of other paths.
        self.websocket_class, self.ws_protocol_class = self.ws_protocol_class, None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # As uvicorn declares it.
        super().connection_made(transport)
        self.flow = BodyFlow(self)

    def shutdown(self) -> None:
        """Stop.

        A request that arrives within `LAST_REQUEST_SECONDS` is answered, as the last on this connection. Streams end
        soon, also if their clients do not read.
        """
        self.is_stopping = True
        if self._is_idle():
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_if_idle)
        else:
            super().shutdown()
            if self._is_live():
                self.loop.call_later(LAST_MESSAGE_SECONDS, self.transport.abort)

    def _is_idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _close_if_idle(self) -> None:
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_drain_timer()
        _drained.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_drained:
            self.drained_bytes += len(data)
            if self.drained_bytes > MAX_DRAINED_BYTES and not self.transport.is_closing():
                self.transport.close()
            self.flow.pause_reading()
            self.loop.call_later(DRAIN_PAUSE_SECONDS, self._read_on)
            return
        self._cancel_keep_alive_timer()
        self.unfinished_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.is_websocket:
                self.ws_protocol_class = self.websocket_class
                self.handle_websocket_upgrade()
                if early := data[upgrade.args[0] :]:  # uvicorn would drop it.
                    self.transport.get_protocol().data_received(early)  # type: ignore[attr-defined]
            else:
                self._after_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_unparsed()
        else:
            if self.unfinished_bytes > MAX_UNFINISHED_BYTES and not self.transport.is_closing():
                self._refuse(431, "headers_too_large", "The request's headers are too large")

    def _after_upgrade(self, data: memoryview) -> None:
        """Parse the bytes after a head with `Upgrade`."""
        while self.is_upgrade_ignored:
            try:
                self._parse_on_at_body()
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._refuse_unparsed()
                return
            else:
                return

    def _parse_on_at_body(self) -> None:
        """Continue with a new parser at the body.

        httptools takes a body after `Upgrade` for another protocol.
        """
        self.is_upgrade_ignored = False
        past_head = _PastHead(self)
        self.parser = httptools.HttpRequestParser(past_head)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn does.
        framing = [header for header in self.scope["headers"] if header[0] in {b"content-length", b"transfer-encoding"}]
        lines = b"".join(b"%s: %s\r\n" % header for header in framing)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % lines)
        past_head.is_past_head = True

    def _refuse_unparsed(self) -> None:
        """Refuse a request that the parser rejected.

        It is not HTTP, or a callback below raised.
        """
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            self.cycle.keep_alive = False
            self.is_drained = True
        elif self.body_cost_bytes <= self.max_body_cost_bytes:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        else:
            if not self.cycle.response_complete and not self.pipeline and not self.cycle.response_started:
                # Report a disconnect to the application and drop its response.
                self.cycle.response_complete = self.cycle.disconnected = True
                self.cycle.message_event.set()
                self.is_body_due = False
            self._refuse(BodyTooLarge.status, BodyTooLarge.code, BodyTooLarge.__doc__ or "")

    def send_400_response(self, msg: str) -> None:
        # The parser does not report the reason. Missing percent-encoding, by hand or by programs, is the usual one.
        hint = "Everything outside ASCII in the path and query has to be percent-encoded, as UTF-8."
        self._refuse(400, "bad_request", f"{msg} {hint}")

    def on_headers_complete(self) -> None:
        self.unfinished_bytes = 0
        self.is_upgrade_ignored = self.parser.should_upgrade()
        if self.is_upgrade_ignored and self.parser.get_method() == b"CONNECT":
            raise ValueError("this server is no proxy")
        if self.is_upgrade_ignored and self._is_websocket():
            self.is_upgrade_ignored, self.is_websocket = False, True
            self.scope["method"] = "GET"
            return
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise ValueError("too many requests are queued")
        self._cancel_keep_alive_timer()
        self.app = exchange = Exchange(self.application)
        super().on_headers_complete()
        self.exchange, exchange.cycle = exchange, self.cycle
        self.is_body_due, self.body_cost_bytes = True, 0
        settings = get_settings()
        is_upload = self.scope["method"] == "POST" and self.scope["path"].rstrip("/").endswith("/media")
        self.max_body_cost_bytes = 2 * (settings.media_max_bytes if is_upload else settings.max_body_bytes)
        # uvicorn would add trailers to the headers. Proxies pass them on, even one named X-Forwarded-For.
        self.headers = []
        if self.is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def _is_live(self) -> bool:
        return self.url.partition(b"?")[0].rstrip(b"/").endswith(LIVE_PATH)

    def _is_websocket(self) -> bool:
        """Return whether the request opens a WebSocket on the path that has them, on a connection without others."""
        headers = dict(self.headers)
        return (
            headers.get(b"upgrade", b"").lower() == b"websocket"
            and b"sec-websocket-key" in headers
            and self.parser.get_method() == b"GET"
            and self._is_live()
            and not {b"content-length", b"transfer-encoding"} & headers.keys()
            and not self.is_stopping
            and self._is_idle()
        )

    def on_body(self, body: bytes) -> None:
        self.unfinished_bytes = 0
        self.body_cost_bytes += max(len(body), MIN_PIECE_BYTES)
        if self.body_cost_bytes > self.max_body_cost_bytes:
            raise BodyTooLarge
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.unfinished_bytes = 0
        if self.is_websocket:
            return
        if self.is_upgrade_ignored:
            return  # The request is not complete, because its body is parsed next.
        self.is_body_due = False
        super().on_message_complete()
        if self.drain_timer is not None:
            self._cancel_drain_timer()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_body_due and self.cycle.response_complete and not self.transport.is_closing():
            if self.exchange.is_to_be_drained:
                self._drain()
            else:
                self._cancel_drain_timer()
                self.drain_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)

    def _drain(self) -> None:
        """Close the connection once the client has stopped sending.

        At most `MAX_DRAINED_BYTES` are read, for at most `DRAIN_SECONDS`.
        """
        self._cancel_keep_alive_timer()
        self._cancel_drain_timer()
        if len(_drained) >= MAX_DRAINED_CONNECTIONS:
            self.transport.close()
            return
        _drained.add(self)
        self.is_drained = True
        self.flow.resume_reading()
        self.transport.write_eof()
        seconds = LAST_REQUEST_SECONDS if self.is_stopping else DRAIN_SECONDS
        self.drain_timer = self.loop.call_later(seconds, self.transport.close)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _cancel_keep_alive_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _cancel_drain_timer(self) -> None:
        if self.drain_timer is not None:
            self.drain_timer.cancel()
            self.drain_timer = None

    def _refuse(self, status: int, code: str, detail: str) -> None:
        # An earlier pipelined request may still be answered. Do not write into the middle of its response.
        if not self._is_idle():
            self.transport.close()
            return
        # If a body is due, its request has already been answered. Do not send a second response.
        if not self.is_body_due:
            request_id = secrets.token_hex(16)
            scope = {"type": "http", "state": {"request_id": request_id}}
            response = problem_response(
                scope, status, code, detail, {"Connection": "close", "X-Request-ID": request_id}
            )
            head = b"".join(b"%s: %s\r\n" % header for header in (*response.raw_headers, *HEADERS, VARY))
            phrase = HTTPStatus(status).phrase.encode()
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, bytes(response.body)))
        self._drain()


# Connections that are still read, so that their clients can read the response.
_drained: set[Protocol] = set()
