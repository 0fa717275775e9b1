"""HTTP as uvicorn speaks it, but for what happens before there is a request which middleware could refuse, and for how
whole answers are sent.
"""

import secrets
import time
from asyncio import TimerHandle, timeout
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPResponseBodyEvent
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.config import get_settings
from app.errors import BodyTooLarge
from app.middleware.cors import VARY
from app.middleware.problem_details import problem_response
from app.middleware.security_headers import HEADERS

# Twice what `HeadLimit` lets pass, so that whoever is a little above it gets that answer, with all its headers.
MAX_UNFINISHED_BYTES = 64 * 1024

# Paths whose route upgrades the connection (WebSocket). Everywhere else `Upgrade` is ignored, as RFC 9110 allows.
UPGRADING_PATHS: frozenset[bytes] = frozenset()

# A body may cost twice MAX_BODY_BYTES before it is cut off here: BodyLimit refuses it earlier and with all headers, but
# only while a route reads it. Each piece counts as at least 128 bytes, because the parser's work is per piece: 1 MB in
# chunks of one byte took 0.65 s of a core.
MIN_PIECE_BYTES = 128

# After an answer with `Connection: close`, what the client still sends is read and dropped, so that it can read the
# answer: closing a socket with unread bytes resets the connection. nginx waits as long (`lingering_time`).
MAX_DRAINED_BYTES = 16_000_000
DRAIN_SECONDS = 30
# Between two reads, each of at most 256 KB: 12 MB/s for each connection, so that others' requests come first.
DRAIN_PAUSE_SECONDS = 0.02
# Connections of a worker that are drained at the same time. More are closed at once.
MAX_DRAINED_CONNECTIONS = 100

# A client that sends nothing of its body for so long is disconnected. The proxies of deploy/ wait 10 s.
STALLED_SECONDS = 30

# One packet of 256 KB holds 14,000 requests, and each takes some 2 KB while it is queued.
MAX_PIPELINED_REQUESTS = 100

# Longer bodies are handed to the transport in pieces of this size, each when it has room: it keeps a copy of what it
# cannot send. 64 KB is the transport's own high-water mark.
PIECE_BYTES = 64 * 1024
# Parts of such bodies that wait in a worker: of one caller (as RateLimit tells them apart), and of all callers. Past
# either, the client among them that has taken nothing for longest is disconnected.
MAX_UNSENT_BYTES_PER_CALLER = 4_000_000
MAX_UNSENT_BYTES = 64_000_000

# For a request that a client sent before it could know that the server stops.
LAST_REQUEST_SECONDS = 0.5

# No header may hold one of these. Line breaks are counted instead: each header has its own, and no other.
_CONTROLS = bytes({*range(32), 127} - {*b"\t\r\n"})
_BODILESS = frozenset({204, 304})


class Cycle(RequestResponseCycle):
    """Sends a whole answer in one piece: uvicorn sends its head by itself, a system call and a packet more.

    The head waits for the first part of the body. Whatever is not quite ordinary is then left to uvicorn.
    """

    head: ASGISendEvent | None = None
    # Of a body that is sent in pieces: what the transport has not got yet, and when it last took a piece.
    unsent_bytes = 0
    moved_at = 0.0
    # Whether the connection is to be closed, but not before the rest of the request's body has come.
    is_to_be_drained = False

    async def receive(self) -> ASGIReceiveEvent:
        if self.more_body and not self.message_event.is_set():
            try:
                async with timeout(STALLED_SECONDS):
                    return await super().receive()
            except TimeoutError:
                self.transport.close()  # Then the next line returns a disconnect.
        return await super().receive()

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self.head = message
            return
        if self.flow.write_paused or self.transport.is_closing():
            await self._drained()
        head, self.head = self.head, None
        if head is not None:
            if self.waiting_for_100_continue and self.more_body:
                # The client may send its body or leave it out now (RFC 9110, 10.1.1), so what follows is ambiguous.
                self.keep_alive = False
            if self._send_whole(head, message):
                return
            await super().send(head)
        if message["type"] == "http.response.body":
            message = await self._send_in_pieces(message)
            if not self.keep_alive and self.more_body and not message.get("more_body", False):
                self.keep_alive = self.is_to_be_drained = True  # The protocol closes it, not uvicorn.
        await super().send(message)

    @property
    def caller(self) -> object:
        """Whose requests are counted together; None where nothing is limited."""
        return self.scope["state"].get("caller")

    async def _drained(self) -> None:
        """Wait until the transport takes more. uvicorn tells only the newest of pipelined requests of a disconnect."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.transport.is_closing():
            self.disconnected = True

    async def _send_in_pieces(self, message: HTTPResponseBodyEvent) -> HTTPResponseBodyEvent:
        """Send a long body but for its last piece, which is returned. The pieces share the body's memory."""
        rest = memoryview(message.get("body", b""))
        if len(rest) <= PIECE_BYTES or self.scope["method"] == "HEAD":
            return message
        try:
            while len(rest) > PIECE_BYTES and not self.disconnected:
                self.unsent_bytes, self.moved_at = len(rest), time.monotonic()
                _sending.add(self)
                if self.caller is not None:
                    of_caller = [cycle for cycle in _sending if cycle.caller == self.caller]
                    _disconnect_stalled(of_caller, MAX_UNSENT_BYTES_PER_CALLER)
                _disconnect_stalled(_sending, MAX_UNSENT_BYTES)
                await super().send(_body(rest[:PIECE_BYTES], more_body=True))
                await self._drained()
                rest = rest[PIECE_BYTES:]
        finally:
            _sending.discard(self)
        return _body(rest, more_body=message.get("more_body", False))

    def _send_whole(self, head: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
        """Send the answer, if it is whole, of a declared length, and nothing is to happen to the connection."""
        if (
            message["type"] != "http.response.body"
            or message.get("more_body", False)
            or self.scope["method"] == "HEAD"
            or not self.keep_alive
            or self.disconnected
            or self.flow.write_paused
            or len(message.get("body", b"")) > PIECE_BYTES
        ):
            return False
        status, headers = head["status"], [*self.default_headers, *head.get("headers", ())]
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
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(text + body)
        self.message_event.set()
        self.on_response()
        return True


def _body(part: memoryview, *, more_body: bool) -> HTTPResponseBodyEvent:
    # uvicorn needs no more of it than its length and that it can be written.
    return {"type": "http.response.body", "body": part, "more_body": more_body}  # type: ignore[typeddict-item]


# The cycles whose long bodies are being sent.
_sending: set[Cycle] = set()


def _disconnect_stalled(cycles: Collection[Cycle], max_bytes: int) -> None:
    """Abort those of the answers that have moved least recently, until the others fit into `max_bytes`."""
    excess_bytes = sum(cycle.unsent_bytes for cycle in cycles) - max_bytes
    if excess_bytes > 0 and len(cycles) > 1:
        for stalled in sorted(cycles, key=lambda cycle: cycle.moved_at)[:-1]:
            _sending.discard(stalled)
            stalled.transport.abort()
            excess_bytes -= stalled.unsent_bytes
            if excess_bytes <= 0:
                break


# Protocols make their cycles by this name.
httptools_impl.RequestResponseCycle = Cycle  # type: ignore[misc]


class _PastHead:
    """What a parser calls that starts at the body of a request: nothing, until it has read the head it is given."""

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


class Protocol(HttpToolsProtocol):
    """Keeps no head (or trailer, or chunk extension) past a limit, refuses what is not HTTP in our one shape, and loses
    no request that is on its way when the server stops.

    uvicorn keeps a head until it is complete, however long that takes, answers what it cannot read in plain text, and
    closes idle connections at once when it stops, however soon after their last answer that is.
    """

    unfinished_bytes = 0
    is_stopping = False
    # Whether the parser has yet to read the end of the request's body, and what that body has cost so far.
    is_body_due = False
    body_cost_bytes = 0
    # Whether the parser takes this request's head for the last of HTTP here.
    is_upgrade_ignored = False
    # Whether what comes is dropped unread, and how much was.
    is_drained = False
    drained_bytes = 0
    drain_timer: TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.max_body_cost_bytes = 2 * get_settings().max_body_bytes

    def shutdown(self) -> None:
        """Called when the server stops: what comes soon is answered, as the last on this connection."""
        self.is_stopping = True
        if self._is_idle():
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

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
        self._unset_keepalive_if_required()
        self.unfinished_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_unparsed()
        else:
            if self.unfinished_bytes > MAX_UNFINISHED_BYTES and not self.transport.is_closing():
                self._refuse(431, "headers_too_large", "The request's headers are too large")

    def _after_upgrade(self, data: memoryview) -> None:
        """Parse what follows a head with `Upgrade`, unless its route upgrades."""
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
        self.handle_websocket_upgrade()

    def _parse_on_at_body(self) -> None:
        """Go on with a parser that knows nothing of `Upgrade`: httptools takes a body after it for another protocol."""
        self.is_upgrade_ignored = False
        past_head = _PastHead(self)
        self.parser = httptools.HttpRequestParser(past_head)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn does.
        framing = [header for header in self.scope["headers"] if header[0] in {b"content-length", b"transfer-encoding"}]
        lines = b"".join(b"%s: %s\r\n" % header for header in framing)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % lines)
        past_head.is_past_head = True

    def _refuse_unparsed(self) -> None:
        """Answer what the parser gave up: it is not HTTP, or one of the callbacks below raised."""
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            self.cycle.keep_alive = False
            self.is_drained = True
        elif self.body_cost_bytes <= self.max_body_cost_bytes:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        else:
            if not self.cycle.response_complete and not self.pipeline and not self.cycle.response_started:
                # The application is told that the client has gone, and what it answers is dropped.
                self.cycle.response_complete = self.cycle.disconnected = True
                self.cycle.message_event.set()
                self.is_body_due = False
            self._refuse(BodyTooLarge.status, BodyTooLarge.code, BodyTooLarge.__doc__ or "")

    def send_400_response(self, msg: str) -> None:
        # The parser does not say what is wrong. This is what people send by hand, and programs that encode nothing.
        hint = "Everything outside ASCII in the path and query has to be percent-encoded, as UTF-8."
        self._refuse(400, "bad_request", f"{msg} {hint}")

    def _should_upgrade(self) -> bool:
        return self.url.partition(b"?")[0] in UPGRADING_PATHS and super()._should_upgrade()

    def on_headers_complete(self) -> None:
        self.unfinished_bytes = 0
        upgrades = self.parser.should_upgrade()
        if upgrades:
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this server is no proxy")
            upgrades = self._should_upgrade()
            self.is_upgrade_ignored = not upgrades
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise ValueError("too many requests are queued")
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        super().on_headers_complete()
        self.is_body_due, self.body_cost_bytes = True, 0
        if not upgrades:
            # Trailers would be added to the headers. Proxies pass them on, also one that is called X-Forwarded-For.
            self.headers = []
        if self.is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.unfinished_bytes = 0
        self.body_cost_bytes += max(len(body), MIN_PIECE_BYTES)
        if self.body_cost_bytes > self.max_body_cost_bytes:
            raise BodyTooLarge
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.unfinished_bytes = 0
        if self.is_upgrade_ignored:
            return  # It is not complete: the body is read next.
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
            if isinstance(self.cycle, Cycle) and self.cycle.is_to_be_drained:
                self._drain()
            else:
                self._cancel_drain_timer()
                self.drain_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)

    def _drain(self) -> None:
        """Close the connection once the client has stopped sending, within `MAX_DRAINED_BYTES` and `DRAIN_SECONDS`."""
        self._unset_keepalive_if_required()
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

    def _cancel_drain_timer(self) -> None:
        if self.drain_timer is not None:
            self.drain_timer.cancel()
            self.drain_timer = None

    def _refuse(self, status: int, code: str, detail: str) -> None:
        # A request before this one may still be answered; then half of an answer must not follow another's.
        if not self._is_idle():
            self.transport.close()
            return
        # Where a body is due, its request was answered already, and has no second answer.
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


# The connections that are read only so that their clients read an answer.
_drained: set[Protocol] = set()
