"""`/live`: changes as they happen, as Server-Sent Events or over a WebSocket."""

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.exceptions import RequestValidationError
from fastapi.sse import format_sse_event
from pydantic_core import PydanticCustomError
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.authentication import (
    TICKET_LIFETIME,
    LiveToken,
    ScopedToken,
    ScopedUser,
    as_request,
    is_same_origin,
    live_credential,
    note_refused,
    uses_cookie,
)
from app.api.route import Route
from app.config import get_settings
from app.errors import CrossSiteRequest, DomainError, NotAuthenticated, Overloaded, TooManyStreams
from app.live.registry import Registry
from app.live.stream import EndReason, Stream
from app.live.topics import MAX_POSTS, MAX_TAGS, EventId, Topics
from app.middleware import continuation, problem_details
from app.middleware.problem_details import responses
from app.models.session import FIRST_ADOPTED
from app.schemas.live import NewTicket, ProblemMessage
from app.security import access_tokens

router = APIRouter(tags=["live"], route_class=Route)

# When a client connects again: soon, but not all at the same moment.
RETRY_MILLISECONDS = (1_000, 5_000)
# Ids of events are accepted for less time than the log is kept, because cleanup may remove them meanwhile.
MARGIN_SECONDS = 600
# Messages of a client: a `watch` of 200 posts has 4 KB. One in this time is read.
MAX_CLIENT_MESSAGE_CHARACTERS = 16_384
SECONDS_PER_CLIENT_MESSAGE = 0.1
SECONDS_BEFORE_REFUSAL = 1.0
CLOSE_CODES: dict[EndReason | None, int] = {"session_ended": 1008, "stopping": 1012, "expired": 1000, None: 1011}

Posts = Annotated[
    str,
    Query(max_length=4_200, description=f"Ids of posts, with commas: `1,2,3`. At most {MAX_POSTS}."),
]
TopicNames = Annotated[
    str,
    Query(
        max_length=4_200,
        description="Other topics, with commas: `new` (published posts), `tag:NAME` (those with the tag, at most"
        f" {MAX_TAGS} tags), and `me` (your notifications).",
    ),
]
LastEventIdHeader = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="The last id that you got. The stream goes on after it."),
]
LastEventId = Annotated[
    str | None, Query(description="The same as the header `Last-Event-ID`, for an `EventSource` with a new ticket.")
]


class LiveResponse(StreamingResponse):
    """The messages of a stream as Server-Sent Events."""

    media_type = "text/event-stream"

    def __init__(self, registry: Registry, stream: Stream) -> None:
        # The header is for nginx, which would hold messages back.
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._registry, self._stream = registry, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the base class has it.
        with _closing_on_error(self._registry, self._stream):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["state"].get("is_head"):
                await send({"type": "http.response.body", "body": b""})
                self._registry.close(self._stream)
                return

        async def go_on(receive: Receive, send: Send) -> None:
            await _run(self._registry, self._stream, _wait_for_disconnect(receive), _write_events(self._stream, send))

        continuation.go_on_with(scope, go_on)


@contextmanager
def _closing_on_error(registry: Registry, stream: Stream) -> Iterator[None]:
    try:
        yield
    except BaseException:
        registry.close(stream)
        raise


async def _run(
    registry: Registry, stream: Stream, reading: Coroutine[Any, Any, None], writing: Coroutine[Any, Any, None]
) -> None:
    """Read from the client and write to it until it disconnects or the stream ends."""
    try:
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(reading)
            await writing
            reader.cancel()
    except* OSError:
        pass
    finally:
        registry.close(stream)


async def _wait_for_disconnect(receive: Receive) -> None:
    """Raise `ConnectionResetError` when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ConnectionResetError


async def _write_events(stream: Stream, send: Send) -> None:
    async for sent in stream.messages():
        if sent.text is None:
            event = format_sse_event(comment="ping", id=sent.event_id)
        elif stream.end_reason is not None:
            event = format_sse_event(data_str=sent.text, retry=random.randint(*RETRY_MILLISECONDS))  # noqa: S311 - jitter.
        else:
            event = format_sse_event(data_str=sent.text, id=sent.event_id)
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _open(
    connection: HTTPConnection, token: access_tokens.AccessToken, topics: Topics, last_event_id: str | None
) -> tuple[Registry, Stream]:
    """Open a stream when its first state is read.

    Raises `NotAuthenticated` if the session has ended, `TooManyStreams` and `Overloaded`.
    """
    registry: Registry = connection.scope["app"].state.live
    since = None
    if last_event_id:
        kept_seconds = get_settings().events_kept.total_seconds() - MARGIN_SECONDS
        since = EventId.parse(last_event_id, not_before=time.time() - kept_seconds)
    stream = registry.open(token, topics, since, is_reset=bool(last_event_id) and since is None)
    with _closing_on_error(registry, stream):
        await stream.opened
    return registry, stream


def _topics(posts: str, names: str) -> Topics:
    """Return the topics of the query. Raises `RequestValidationError`."""
    wanted = {
        "posts": [f"post:{post_id.strip()}" for post_id in posts.split(",") if post_id.strip()],
        "topics": [name.strip() for name in names.split(",") if name.strip()],
    }
    topics = Topics()
    for parameter, of_parameter in wanted.items():
        try:
            topics |= Topics.parse(of_parameter)
        except (ValueError, PydanticCustomError) as error:
            problem = {"type": "topics", "loc": ("query", parameter), "msg": str(error)}
            raise RequestValidationError([problem]) from None
    return topics


@router.get(
    "/live",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A stream of messages. The first is `state`, the last is `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **responses(NotAuthenticated, CrossSiteRequest, TooManyStreams, Overloaded),
    },
)
async def get_live(
    request: Request,
    token: LiveToken,
    posts: Posts = "",
    topics: TopicNames = "",
    last_event_id: LastEventId = None,
    last_event_id_header: LastEventIdHeader = None,
) -> Response:
    """Get changes as they happen, as Server-Sent Events.

    The first message has the state of what you watch. After it you get the newest value of whatever changes, and new
    comments, posts and notifications. docs/http-contract.md has the messages. The same path takes WebSockets.
    """
    # An `EventSource` that connects again by itself sends the newer one in the header.
    since = last_event_id_header or last_event_id
    registry, stream = await _open(request, token, _topics(posts, topics), since)
    return LiveResponse(registry, stream)


@router.post("/live/tickets", status_code=201, response_model=NewTicket, responses=responses(NotAuthenticated))
def create_live_ticket(token: ScopedToken, _: ScopedUser) -> NewTicket:
    """Create a ticket for one connection to `/live`.

    It is for clients that cannot send headers there: `EventSource`, and WebSockets in browsers.
    """
    if token.session_id > FIRST_ADOPTED:  # A token of the tutorial, which names no session that a ticket could name.
        raise NotAuthenticated
    ticket = access_tokens.issue(token.user_id, token.session_id, TICKET_LIFETIME, "ticket")
    return NewTicket(ticket=ticket, expires_in=int(TICKET_LIFETIME.total_seconds()))


@router.websocket("/live")
async def live_socket(websocket: WebSocket) -> None:
    """Send the same messages over a WebSocket, whose client can change what it watches."""
    request, query = as_request(websocket.scope), websocket.query_params
    try:
        _require_same_origin(request)
        token = await live_credential(request, query.get("ticket"))
        topics = _topics(query.get("posts", ""), query.get("topics", ""))
        registry, stream = await _open(websocket, token, topics, query.get("last_event_id"))
    except Exception as error:
        if isinstance(error, NotAuthenticated):
            note_refused(request.scope)
        if isinstance(error, TooManyStreams):  # So that a client that tries again at once takes little time.
            await asyncio.sleep(SECONDS_BEFORE_REFUSAL)
        await websocket.send_denial_response(await problem_details.respond_to_error(request, error))
        return
    with _closing_on_error(registry, stream):
        await websocket.accept()

    async def go_on(receive: Receive, send: Send) -> None:
        await _run(registry, stream, _read(receive, send, registry, stream), _write(stream, send))

    continuation.go_on_with(websocket.scope, go_on)


def _require_same_origin(request: Request) -> None:
    """Refuse the cookie to pages of other origins, whose scripts could read the messages.

    Browsers send the origin with each handshake. Raises `CrossSiteRequest`.
    """
    if "ticket" not in request.query_params and uses_cookie(request) and not is_same_origin(request):
        raise CrossSiteRequest


async def _write(stream: Stream, send: Send) -> None:
    async for sent in stream.messages():
        if sent.text is not None:  # The server pings WebSockets itself.
            # The same message, with the id that `last_event_id` takes.
            event_id = "" if sent.event_id is None else f',"event_id":"{sent.event_id}"'
            await send({"type": "websocket.send", "text": f"{sent.text[:-1]}{event_id}}}"})
    await send({"type": "websocket.close", "code": CLOSE_CODES[stream.end_reason]})


async def _read(receive: Receive, send: Send, registry: Registry, stream: Stream) -> None:
    """Do what the client's messages say. Raises `ConnectionResetError` when it disconnects."""
    while (message := await receive())["type"] != "websocket.disconnect":
        try:
            _obey(message.get("text") or "", registry, stream)
        except (ValueError, RecursionError, PydanticCustomError, DomainError) as error:
            detail = str(error) if isinstance(error, DomainError) or type(error) is ValueError else _NOT_UNDERSTOOD
            await send({"type": "websocket.send", "text": ProblemMessage(detail=detail).model_dump_json()})
        await asyncio.sleep(SECONDS_PER_CLIENT_MESSAGE)
    raise ConnectionResetError


_NOT_UNDERSTOOD = 'send {"watch": ["post:1", "new"]} or {"unwatch": ["post:1"]}'


def _obey(text: str, registry: Registry, stream: Stream) -> None:
    """Do what a client's message says. Raises `ValueError` and `Overloaded`."""
    message: Any = json.loads(text) if len(text) <= MAX_CLIENT_MESSAGE_CHARACTERS else None
    if not isinstance(message, dict) or not message or message.keys() - {"watch", "unwatch"}:
        raise ValueError(_NOT_UNDERSTOOD)
    for names in message.values():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(_NOT_UNDERSTOOD)
    if "unwatch" in message:
        registry.unwatch(stream, Topics.parse(message["unwatch"]))
    if "watch" in message:
        registry.watch(stream, Topics.parse(message["watch"]))
