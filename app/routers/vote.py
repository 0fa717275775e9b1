"""`/vote` and `/posts/{id}/vote`: cast and remove votes."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.api import batch_queues
from app.api.authentication import ScopedToken, scoped_credential
from app.api.fast_path import Adapter, NotOnFastPath, json_body, path_id
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.responses import Json
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    AlreadyVoted,
    IdempotencyInProgress,
    IdempotencyMismatch,
    NotAuthenticated,
    Overloaded,
    PostNotFound,
    VotedPostNotFound,
    VoteNotFound,
)
from app.middleware.problem_details import responses
from app.schemas.types import Id
from app.schemas.vote import VoteCounted, VoteIn, VoteState
from app.security.access_tokens import AccessToken
from app.services import idempotency, vote

router = APIRouter(tags=["votes"], route_class=Route)

VOTE_ERRORS = (
    NotAuthenticated,
    VotedPostNotFound,
    VoteNotFound,
    AlreadyVoted,
    IdempotencyInProgress,
    IdempotencyMismatch,
    Overloaded,
)


@router.post("/votes", status_code=201, response_model=VoteCounted, include_in_schema=False)
@router.post("/vote", status_code=201, response_model=VoteCounted, responses=responses(*VOTE_ERRORS))
async def cast_vote(wanted: VoteIn, token: ScopedToken, idempotent: IdempotentRequest, db: SessionDep) -> Response:
    """Vote for a post, or remove your vote.

    `vote_dir` 1 votes, 0 removes. A second vote is 409, and removing a vote that does not exist is 404.
    `PUT` and `DELETE /posts/{id}/vote` are idempotent instead.
    """
    ballot = _ballot(wanted, token)
    if idempotent is None:
        return await _cast(ballot)
    return await run_in_threadpool(_cast_once, db, ballot, idempotent)


async def cast_vote_fast(request: Request) -> Response:
    """Adapter of `cast_vote` for the fast path."""
    token = await scoped_credential(request)
    if "idempotency-key" in request.headers:
        raise NotOnFastPath
    return await _cast(_ballot(await json_body(request, VoteIn), token))


def _ballot(wanted: VoteIn, token: AccessToken) -> vote.Ballot:
    return vote.Ballot(token, wanted.post_id, is_for=wanted.vote_dir == 1)


async def _cast(ballot: vote.Ballot) -> Response:
    return _json(vote.counted(ballot, await batch_queues.votes().submit(ballot)), 201)


def _cast_once(db: Session, ballot: vote.Ballot, idempotent: idempotency.Request) -> Response:
    """Cast the ballot and store the response in one transaction, or replay it."""
    vote.authenticate(db, ballot)  # Replay a stored response only if the caller's session is still valid.
    return respond_once(db, idempotent, ballot.token.user_id, lambda: (vote.cast_one(db, ballot), None))


STATE_RESPONSES = responses(NotAuthenticated, PostNotFound, Overloaded)
PostId = Annotated[Id, Path(alias="id")]


@router.put("/posts/{id}/vote", response_model=VoteState, responses=STATE_RESPONSES)
async def set_vote(post_id: PostId, token: ScopedToken) -> Response:
    """Vote for a post. Idempotent."""
    return await _set(token, post_id, is_for=True)


async def set_vote_fast(request: Request) -> Response:
    """Adapter of `set_vote` for the fast path."""
    return await _set(await scoped_credential(request), path_id(request), is_for=True)


@router.delete("/posts/{id}/vote", response_model=VoteState, responses=STATE_RESPONSES)
async def remove_vote(post_id: PostId, token: ScopedToken) -> Response:
    """Remove your vote from a post. Idempotent."""
    return await _set(token, post_id, is_for=False)


async def remove_vote_fast(request: Request) -> Response:
    """Adapter of `remove_vote` for the fast path."""
    return await _set(await scoped_credential(request), path_id(request), is_for=False)


async def _set(token: AccessToken, post_id: int, *, is_for: bool) -> Response:
    outcome = await batch_queues.votes().submit(vote.Ballot(token, post_id, is_for))
    return _json(VoteState(post_id=post_id, votes=outcome.votes, voted=is_for), 200)


def _json(body: BaseModel, status: int) -> Response:
    """Return the body as JSON directly, because FastAPI would validate it again."""
    return Json(body.model_dump_json().encode(), status)


FAST: dict[Callable[..., Any], Adapter] = {
    cast_vote: cast_vote_fast,
    set_vote: set_vote_fast,
    remove_vote: remove_vote_fast,
}
