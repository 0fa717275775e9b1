"""One HTTP request to a user's URL, bounded in time and bytes, to public addresses only.

The name is resolved once, and the request goes to the address that was examined, with the name for TLS. So a name that
resolves to another address the next time gains nothing. Redirects are not followed.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address

import h11

from app.security.public_urls import Refused, Target, parse, require_public

MAX_SECONDS = 10
MAX_RESPONSE_BYTES = 65_536
READ_BYTES = 16_384
# Addresses of a name that are tried, one after the other.
MAX_ADDRESSES = 4
# Threads that resolve names, in each process: four times the requests at once, because a thread outlives its request
# if a name server does not answer.
MAX_RESOLVERS = 256
_resolvers = threading.BoundedSemaphore(MAX_RESOLVERS)


class NotDelivered(Exception):
    """There is no answer. The message says why, and nothing about the network of the server."""


async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
    """Send the body by POST and return the status code. Raises `NotDelivered`."""
    try:
        async with asyncio.timeout(MAX_SECONDS):
            target = parse(url)
            reader, writer = await _connect(target)
            try:
                return await _exchange(reader, writer, target, headers, body)
            finally:
                # Not `wait_closed`, which waits for the other side.
                writer.transport.abort()
    except Refused as error:
        raise NotDelivered(str(error)) from None
    except TimeoutError:
        raise NotDelivered(f"no answer within {MAX_SECONDS} seconds") from None
    except ssl.SSLCertVerificationError as error:
        raise NotDelivered(f"the certificate is not valid: {error.verify_message}") from None
    except ssl.SSLError:
        raise NotDelivered("TLS failed") from None
    except socket.gaierror:
        raise NotDelivered("the host name cannot be resolved") from None
    except OSError:
        raise NotDelivered("the connection failed") from None
    except h11.RemoteProtocolError:
        raise NotDelivered("the answer is not HTTP/1.1") from None


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address of the host. All must be public: a name with one of each kind is no honest one."""
    addresses = await _resolve(target.host, target.port)
    for address in addresses:
        require_public(ip_address(address))
    secure: dict[str, object] = {}
    if target.scheme == "https":
        secure = {"ssl": tls_context(), "server_hostname": target.host}
    failure: OSError = OSError("no address")
    for address in addresses[:MAX_ADDRESSES]:
        try:
            return await asyncio.open_connection(address, target.port, **secure)  # type: ignore[arg-type]
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
    raise failure


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the context of all connections. Loading the certificates takes 40 ms, which delay every other request."""
    return ssl.create_default_context()


async def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name.

    Each name has a thread of its own: a name server that answers late, as one of a user may, delays no other request,
    and no stop, because the threads are daemons. The executor of the event loop has six threads on two cores.
    """
    loop = asyncio.get_running_loop()
    resolved: asyncio.Future[list[str]] = loop.create_future()

    def set_result(addresses: list[str], error: OSError | None) -> None:
        if resolved.cancelled():
            return
        if error is None:
            resolved.set_result(addresses)
        else:
            resolved.set_exception(error)

    def run() -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except OSError as error:
            failure = error
        finally:
            _resolvers.release()
        with suppress(RuntimeError):  # The event loop was closed.
            loop.call_soon_threadsafe(set_result, addresses, failure)

    if not _resolvers.acquire(blocking=False):
        raise NotDelivered("too many names are being resolved")
    threading.Thread(target=run, name="resolver", daemon=True).start()
    return await resolved


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Target,
    headers: Mapping[str, str],
    body: bytes,
) -> int:
    http = h11.Connection(h11.CLIENT)
    sent = {"Host": target.host_header, **headers, "Content-Length": str(len(body)), "Connection": "close"}
    request = h11.Request(method="POST", target=target.path, headers=list(sent.items()))
    writer.write(b"".join(http.send(event) or b"" for event in (request, h11.Data(data=body), h11.EndOfMessage())))
    await writer.drain()
    received = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            received += len(data)
            if received > MAX_RESPONSE_BYTES:
                raise NotDelivered(f"the answer is longer than {MAX_RESPONSE_BYTES} bytes")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            # The rest is read so that the receiver sees no reset, and does not matter.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    while received < MAX_RESPONSE_BYTES and (data := await reader.read(READ_BYTES)):
                        received += len(data)
            return event.status_code
        elif not isinstance(event, h11.InformationalResponse):
            raise NotDelivered("the connection was closed before the answer")
