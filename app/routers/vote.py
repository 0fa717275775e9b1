"""`/vote` and `/posts/{id}/vote`: cast and remove votes."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.responses import Response

from app.api import batch_queues
from app.api.authentication import ScopedToken
from app.api.fast_path import FastRoute
from app.api.idempotency_key import IdempotentRequest, respond_with
from app.api.responses import Json
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
from app.services import idempotency, vote

fast = APIRouter(tags=["votes"], route_class=FastRoute)

VOTE_ERRORS = (
    NotAuthenticated,
    VotedPostNotFound,
    VoteNotFound,
    AlreadyVoted,
    IdempotencyInProgress,
    IdempotencyMismatch,
    Overloaded,
)


@fast.post("/votes", status_code=201, response_model=VoteCounted, include_in_schema=False)
@fast.post("/vote", status_code=201, response_model=VoteCounted, responses=responses(*VOTE_ERRORS))
async def cast_vote(wanted: VoteIn, token: ScopedToken, idempotent: IdempotentRequest) -> Response:
    """Vote for a post, or remove your vote.

    `vote_dir` 1 votes, 0 removes. A second vote is 409, and removing a vote that does not exist is 404.
    `PUT` and `DELETE /posts/{id}/vote` are idempotent instead.
    """
    ballot = vote.Ballot(token, wanted.post_id, is_for=wanted.vote_dir == 1)
    outcome = await batch_queues.votes().submit(
        batch_queues.VoteRequest(ballot, idempotent and idempotent.of(token.user_id))
    )
    if isinstance(outcome, idempotency.StoredResponse):
        return respond_with(outcome)
    return _json(vote.counted(ballot, outcome), 201)


PostId = Annotated[Id, Path(alias="id")]


@fast.put("/posts/{id}/vote", response_model=VoteState, responses=responses(NotAuthenticated, PostNotFound, Overloaded))
async def set_vote(post_id: PostId, token: ScopedToken) -> Response:
    """Vote for a post. Idempotent."""
    return await _state(vote.Ballot(token, post_id, is_for=True))


@fast.delete(
    "/posts/{id}/vote", response_model=VoteState, responses=responses(NotAuthenticated, PostNotFound, Overloaded)
)
async def remove_vote(post_id: PostId, token: ScopedToken) -> Response:
    """Remove your vote from a post. Idempotent."""
    return await _state(vote.Ballot(token, post_id, is_for=False))


async def _state(ballot: vote.Ballot) -> Response:
    outcome = await batch_queues.votes().submit(batch_queues.VoteRequest(ballot))
    assert isinstance(outcome, vote.Cast)  # noqa: S101 - without a key there is no stored response.
    return _json(VoteState(post_id=ballot.post_id, votes=outcome.votes, voted=ballot.is_for), 200)


def _json(body: BaseModel, status: int) -> Response:
    """Return the body as JSON directly, because FastAPI would validate it again."""
    return Json(body.model_dump_json().encode(), status)
