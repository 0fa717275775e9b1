"""`/users/me/export`: everything of the caller's account as a ZIP."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import psycopg2
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.authentication import CurrentUser, Token
from app.api.route import Route
from app.database.sessions import ConnectionLimit
from app.errors import DomainError, ExportInProgress, NotAuthenticated, Overloaded, TooManyTries
from app.media.storage import StorageError
from app.middleware.problem_details import refusal, responses
from app.security import attempt_limits
from app.security.access_tokens import AccessToken
from app.services import export

logger = logging.getLogger("app")

router = APIRouter(prefix="/users", tags=["users"], route_class=Route)

# For readers of 1 MB/s, an account may have 600 MB of compressed rows.
MAX_DURATION = timedelta(minutes=10)
# Per worker. Each takes some 2 MB while its reader is slow.
MAX_EXPORTS = 20
# Batches that run at the same time in a worker, so that exports leave threads and connections to other requests.
_batch_limit = ConnectionLimit("exports", slots=2)
_running: set[int] = set()


class Export(StreamingResponse):
    """The ZIP, made while it is sent.

    One export of an account runs at a time, on all servers together. An export that must end early ends its connection,
    so that the client notices: after `MAX_DURATION`, with the session, when the server stops, and when the database
    does not answer.
    """

    def __init__(self, request: Request, token: AccessToken) -> None:
        disposition = {"Content-Disposition": f'attachment; filename="export-{token.user_id}.zip"'}
        super().__init__(self._parts(), media_type="application/zip", headers=disposition)
        self._state = request.app.state
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user_id = self._token.user_id
        try:
            if len(_running) >= MAX_EXPORTS:
                raise Overloaded
            await run_in_threadpool(_claim, user_id)
        except DomainError as error:
            await refusal(scope, error)(scope, receive, send)
            return
        _running.add(user_id)
        try:
            async with asyncio.timeout(MAX_DURATION.total_seconds()):
                await super().__call__(scope, receive, send)
        except (DomainError, StorageError, TimeoutError, SQLAlchemyError, psycopg2.Error) as error:
            # The server closes the connection of a response that is not complete.
            logger.warning("export ended early user_id=%d reason=%s", user_id, type(error).__name__)
        finally:
            _running.discard(user_id)
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(attempt_limits.release, "export", str(user_id))

    async def _parts(self) -> AsyncIterator[bytes]:
        parts = export.parts(self._token.user_id, self._token.session_id)
        while True:
            if getattr(self._state, "is_stopping", False):
                raise Overloaded
            async with _batch_limit.slot():
                part = await run_in_threadpool(next, parts, None)
            if part is None:
                return
            if part:
                yield part


def _claim(user_id: int) -> None:
    """Begin the account's export. Raises `ExportInProgress`, `TooManyTries` and `Unavailable`."""
    if not attempt_limits.claim("export", str(user_id), kept=MAX_DURATION):
        raise ExportInProgress
    try:
        attempt_limits.spend(attempt_limits.EXPORT_OF_ACCOUNT, str(user_id))
    except DomainError:
        attempt_limits.release("export", str(user_id))
        raise


@router.get(
    "/me/export",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        **responses(NotAuthenticated, ExportInProgress, TooManyTries, Overloaded),
    },
)
def export_me(token: Token, _: CurrentUser, request: Request) -> Response:
    """Get everything of your account as a ZIP of JSON files.

    The ZIP is made while you read it. If the connection breaks, ask again. Five exports an hour, one at a time.
    """
    return Export(request, token)
