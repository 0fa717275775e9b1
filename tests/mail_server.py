"""A mail server for tests, on loopback: the part of SMTP that smtplib uses, and several ways to fail."""

import re
import socketserver
import ssl
import threading
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Literal, Self

# accept; refuse permanently, or the login, or temporarily; disconnect before or after accepting; do not respond.
Behaviour = Literal["accept", "refuse", "refuse login", "busy", "die before", "die after", "hang"]


@dataclass(frozen=True)
class Received:
    """A mail, and the address that it was sent to."""

    address: str
    message: EmailMessage
    login: str | None = None
    is_encrypted: bool = False

    @property
    def text(self) -> str:
        return str(self.message.get_content()).replace("\r\n", "\n")

    @property
    def token(self) -> str:
        """Return the fragment of the link."""
        (token,) = re.findall(r"#token=([\w-]+)$", self.text, re.MULTILINE)
        return str(token)


class MailServer(socketserver.ThreadingTCPServer):
    """`with MailServer() as server:` listens on `server.port`; `server.received` is what came, in order."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviour: Behaviour = "accept", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.behaviour: Behaviour = behaviour
        self.tls = tls
        self.received: list[Received] = []
        self.connection_count = 0
        self.is_released = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_released.set()
        self.shutdown()
        self.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer
    login: str | None = None
    is_encrypted = False

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        self.server.connection_count += 1
        if self.server.behaviour == "hang":
            self.server.is_released.wait(60)
            return
        try:
            self.say("220 tests")
            while line := self.rfile.readline():
                if not self.answer(line.decode().rstrip("\r\n")):
                    return
        except OSError:
            pass  # The client has disconnected.

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # The encrypted one. The server has only the other.

    def answer(self, line: str) -> bool:
        """Return whether the conversation goes on."""
        verb = line[:4].upper()
        if verb == "EHLO":
            can_encrypt = self.server.tls is not None and not self.is_encrypted
            self.say("250-tests")
            self.say("250-AUTH PLAIN")
            self.say("250 STARTTLS" if can_encrypt else "250 8BITMIME")
        elif verb == "STAR" and self.server.tls is not None:
            self.say("220 go ahead")
            self.encrypt(self.server.tls)
        elif verb == "AUTH":
            self.login = line
            self.say("535 no" if self.server.behaviour == "refuse login" else "235 welcome")
        elif verb == "RCPT" and self.server.behaviour in {"refuse", "busy"}:
            self.say(f"{550 if self.server.behaviour == 'refuse' else 451} {line}")
        elif verb == "DATA":
            return self.take()
        elif verb in {"MAIL", "RCPT", "RSET", "NOOP"}:
            if verb == "RCPT":
                self.address = line.partition("<")[2].rstrip(">")
            self.say("250 fine")
        elif verb == "QUIT":
            self.say("221 bye")
            return False
        else:
            self.say("502 what?")
        return True

    def encrypt(self, tls: ssl.SSLContext) -> None:
        self.request = self.connection = tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.is_encrypted = True

    def take(self) -> bool:
        self.say("354 go on")
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        if self.server.behaviour == "die before":
            return False
        message = message_from_bytes(b"".join(lines), _class=EmailMessage, policy=policy.default)
        self.server.received.append(Received(self.address, message, self.login, self.is_encrypted))
        if self.server.behaviour == "die after":
            return False
        self.say("250 taken")
        return True
