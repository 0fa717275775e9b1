"""One HTTP request to a user's URL, bounded in time and bytes, to public addresses only.

The name is resolved once, and the request goes to the address that was examined, with the name for TLS. So a name that
resolves to another address the next time gains nothing. Redirects are not followed.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address

import h11

from app.security.public_urls import Refused, Target, parse, require_public

MAX_SECONDS = 10
MAX_RESPONSE_BYTES = 65_536
READ_BYTES = 16_384
# Addresses of a name that are tried, one after the other.
MAX_ADDRESSES = 4


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
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        require_public(ip_address(address))
    secure: dict[str, object] = {}
    if target.scheme == "https":
        secure = {"ssl": ssl.create_default_context(), "server_hostname": target.host}
    failure: OSError = OSError("no address")
    for address in addresses[:MAX_ADDRESSES]:
        try:
            return await asyncio.open_connection(address, target.port, **secure)  # type: ignore[arg-type]
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
    raise failure


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
