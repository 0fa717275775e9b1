"""HTTP as uvicorn reads it, but for two things that happen before there is a request which middleware could refuse."""

import secrets
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.middleware.security_headers import HEADERS
from app.problems import problem_response

# Twice what `HeadLimit` lets pass, so that whoever is a little above it gets that answer, with all its headers.
MOST_UNFINISHED_BYTES = 64 * 1024


class Protocol(HttpToolsProtocol):
    """Keeps no head (or trailer, or chunk extension) past a limit, and refuses what is not HTTP in our one shape.

    uvicorn keeps a head until it is complete, however long that takes, and answers what it cannot read in plain text.
    """

    unfinished_bytes = 0

    def data_received(self, data: bytes) -> None:
        self.unfinished_bytes += len(data)
        super().data_received(data)
        if self.unfinished_bytes > MOST_UNFINISHED_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", "The request's headers are too large")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", msg)

    def on_headers_complete(self) -> None:
        self.unfinished_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.unfinished_bytes = 0
        super().on_message_complete()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        # A request before this one may still be answered; then half of an answer must not follow another's.
        if self.cycle is None or self.cycle.response_complete:
            request_id = secrets.token_hex(16)
            scope = {"type": "http", "state": {"request_id": request_id}}
            response = problem_response(
                scope, status, code, detail, {"Connection": "close", "X-Request-ID": request_id}
            )
            head = b"".join(b"%s: %s\r\n" % header for header in (*response.raw_headers, *HEADERS))
            phrase = HTTPStatus(status).phrase.encode()
            self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, head, bytes(response.body)))
        self.transport.close()
