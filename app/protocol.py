"""HTTP as uvicorn speaks it, but for what happens before there is a request which middleware could refuse, and for how
whole answers are sent.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.middleware.cors import VARY
from app.middleware.security_headers import HEADERS
from app.problems import problem_response

# Twice what `HeadLimit` lets pass, so that whoever is a little above it gets that answer, with all its headers.
MOST_UNFINISHED_BYTES = 64 * 1024

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

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self.head = message
            return
        head, self.head = self.head, None
        if head is not None:
            if self._send_whole(head, message):
                return
            await super().send(head)
        await super().send(message)

    def _send_whole(self, head: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
        """Send the answer, if it is whole, of a declared length, and nothing is to happen to the connection."""
        if (
            message["type"] != "http.response.body"
            or message.get("more_body", False)
            or self.scope["method"] == "HEAD"
            or not self.keep_alive
            or self.disconnected
            or self.flow.write_paused
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


# Protocols make their cycles by this name.
httptools_impl.RequestResponseCycle = Cycle  # type: ignore[misc]


class Protocol(HttpToolsProtocol):
    """Keeps no head (or trailer, or chunk extension) past a limit, refuses what is not HTTP in our one shape, and loses
    no request that is on its way when the server stops.

    uvicorn keeps a head until it is complete, however long that takes, answers what it cannot read in plain text, and
    closes idle connections at once when it stops, however soon after their last answer that is.
    """

    unfinished_bytes = 0
    is_stopping = False

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

    def data_received(self, data: bytes) -> None:
        self.unfinished_bytes += len(data)
        super().data_received(data)
        if self.unfinished_bytes > MOST_UNFINISHED_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", "The request's headers are too large")

    def send_400_response(self, msg: str) -> None:
        # The parser does not say what is wrong. This is what people send by hand, and programs that encode nothing.
        hint = "Everything outside ASCII in the path and query has to be percent-encoded, as UTF-8."
        self._refuse(400, "bad_request", f"{msg} {hint}")

    def on_headers_complete(self) -> None:
        self.unfinished_bytes = 0
        super().on_headers_complete()
        if self.is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.unfinished_bytes = 0
        super().on_message_complete()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        # A request before this one may still be answered; then half of an answer must not follow another's.
        if self._is_idle():
            request_id = secrets.token_hex(16)
            scope = {"type": "http", "state": {"request_id": request_id}}
            response = problem_response(
                scope, status, code, detail, {"Connection": "close", "X-Request-ID": request_id}
            )
            head = b"".join(b"%s: %s\r\n" % header for header in (*response.raw_headers, *HEADERS, VARY))
            phrase = HTTPStatus(status).phrase.encode()
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, bytes(response.body)))
        self.transport.close()
