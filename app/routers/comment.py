"""`/posts/{id}/comments` and `/comments`: read, write, change and remove comments, and vote for them."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api import batch_queues
from app.api.authentication import (
    PublicToken,
    PublicUser,
    ScopedToken,
    ScopedUser,
    public_credential,
    scoped_credential,
)
from app.api.conditional import CONDITIONAL, IF_NONE_MATCH, IfMatch, expected_versions, respond
from app.api.fast_path import Adapter, path_id
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import link_header, linked, read_query
from app.api.responses import Json
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    Blocked,
    CommentNotFound,
    IdempotencyInProgress,
    IdempotencyMismatch,
    Locked,
    MalformedCursor,
    NotAuthenticated,
    NotAuthorized,
    Overloaded,
    PostNotFound,
    PreconditionFailed,
    RepliesTooDeep,
    UserNotFound,
)
from app.middleware.problem_details import headers, responses
from app.models.post import FIRST_VERSION
from app.schemas.comment import (
    CommentChange,
    CommentIn,
    CommentOut,
    CommentVoteState,
    ThreadComment,
    ThreadParameters,
)
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.security.access_tokens import AccessToken
from app.services import comment, vote

router = APIRouter(tags=["comments"], route_class=Route)

PostId = Annotated[Id, Path(alias="id")]
CommentId = Annotated[Id, Path(alias="id")]


@router.get(
    "/posts/{id}/comments",
    response_model=list[ThreadComment],
    responses={
        **CONDITIONAL,
        **responses(NotAuthenticated, PostNotFound, CommentNotFound, MalformedCursor, Overloaded),
    },
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def list_comments(post_id: PostId, token: PublicToken, request: Request) -> Response:
    """List comments on a post, each with its first replies.

    `Link` has the address of the next page. A page may have fewer comments than `limit`, and fewer replies than
    `depth` allows, because it has at most 1 MB. In `top`, a comment that gains or loses votes while you follow `Link`
    may appear twice or not at all. Comments of users whom you blocked, and the replies to them, are left out.
    """
    wanted, repeated = read_query(ThreadParameters, request.scope["query_string"])
    query = comment.ThreadQuery(
        post_id,
        wanted.parent_id,
        wanted.sort,
        wanted.limit,
        wanted.depth,
        comment.position_of(wanted.cursor, post_id, wanted.parent_id, wanted.sort) if wanted.cursor else None,
    )
    thread = await batch_queues.threads().submit(comment.ThreadRequest(token, query))
    return _respond_with_list(request, thread.json, link_header(repeated, next=thread.next_cursor))


async def list_comments_fast(request: Request) -> Response:
    """Adapter of `list_comments` for the fast path."""
    return await list_comments(path_id(request), await public_credential(request), request)


@router.post(
    "/posts/{id}/comments",
    status_code=201,
    response_model=CommentOut,
    responses={
        201: headers("ETag", "Location"),
        **responses(
            NotAuthenticated,
            Blocked,
            Locked,
            PostNotFound,
            CommentNotFound,
            RepliesTooDeep,
            IdempotencyInProgress,
            IdempotencyMismatch,
        ),
    },
)
def create_comment(
    post_id: PostId, new: CommentIn, caller: ScopedUser, db: SessionDep, idempotent: IdempotentRequest, request: Request
) -> Response:
    """Comment on a published post, or reply to a comment on it."""

    def create() -> tuple[CommentOut, str]:
        written = comment.write(db, caller, post_id, new)
        return written, f"/comments/{written.id}"

    response = respond_once(db, idempotent, caller.id, create, http_request=request)
    response.headers["ETag"] = f'"{FIRST_VERSION}"'  # Also correct for a stored response, which is of that version.
    return response


@router.get(
    "/comments/{id}",
    response_model=CommentOut,
    responses={**CONDITIONAL, **responses(NotAuthenticated, CommentNotFound)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
def get_comment(comment_id: CommentId, caller: PublicUser, db: SessionDep, request: Request) -> Response:
    """Get a comment.

    A deleted comment that has replies is `deleted`, without content and author. Any other is 404.
    """
    row = comment.get(db, caller, comment_id)
    body = comment.as_json(row, caller)
    return respond(request, f"{row.version}-{_digest(body)}", lambda: body)


@router.patch(
    "/comments/{id}",
    response_model=CommentOut,
    responses={
        200: headers("ETag"),
        **responses(NotAuthenticated, NotAuthorized, CommentNotFound, PreconditionFailed),
    },
)
def change_comment(
    comment_id: CommentId,
    wanted: CommentChange,
    caller: ScopedUser,
    db: SessionDep,
    response: Response,
    if_match: IfMatch = None,
) -> CommentOut:
    """Change the text of your comment. A deleted comment is 404."""
    row = comment.change(db, caller, comment_id, wanted.content, expected_versions(if_match))
    response.headers["ETag"] = f'"{row.version}"'
    return comment.as_schema(row, caller)


@router.delete(
    "/comments/{id}",
    status_code=204,
    responses=responses(NotAuthenticated, NotAuthorized, CommentNotFound, PreconditionFailed),
)
def delete_comment(comment_id: CommentId, caller: ScopedUser, db: SessionDep, if_match: IfMatch = None) -> None:
    """Delete your comment. Moderators can delete every comment.

    If it has replies, it stays without content and author.
    """
    comment.remove(db, caller, comment_id, expected_versions(if_match))


VOTE_RESPONSES = responses(NotAuthenticated, CommentNotFound, Overloaded)


@router.put("/comments/{id}/vote", response_model=CommentVoteState, responses=VOTE_RESPONSES)
async def set_comment_vote(comment_id: CommentId, token: ScopedToken) -> Response:
    """Vote for a comment. Idempotent."""
    return await _set_vote(token, comment_id, is_for=True)


async def set_comment_vote_fast(request: Request) -> Response:
    """Adapter of `set_comment_vote` for the fast path."""
    return await _set_vote(await scoped_credential(request), path_id(request), is_for=True)


@router.delete("/comments/{id}/vote", response_model=CommentVoteState, responses=VOTE_RESPONSES)
async def remove_comment_vote(comment_id: CommentId, token: ScopedToken) -> Response:
    """Remove your vote from a comment. Idempotent."""
    return await _set_vote(token, comment_id, is_for=False)


async def remove_comment_vote_fast(request: Request) -> Response:
    """Adapter of `remove_comment_vote` for the fast path."""
    return await _set_vote(await scoped_credential(request), path_id(request), is_for=False)


async def _set_vote(token: AccessToken, comment_id: int, *, is_for: bool) -> Response:
    outcome = await batch_queues.comment_votes().submit(vote.Ballot(token, comment_id, is_for))
    state = CommentVoteState(comment_id=comment_id, votes=outcome.votes, voted=is_for)
    return Json(state.model_dump_json().encode())


@router.get(
    "/users/{id}/comments",
    response_model=list[CommentOut],
    responses={**CONDITIONAL, **responses(NotAuthenticated, UserNotFound, MalformedCursor)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
def list_comments_of_user(
    user_id: Annotated[Id, Path(alias="id")],
    caller: PublicUser,
    db: SessionDep,
    request: Request,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Response:
    """List a user's comments, newest first.

    Comments on posts that you cannot see are left out, and all of a user whom you blocked.
    """
    page = page_of(f"comments of {user_id}", limit=limit, cursor=cursor)
    body, last_id = comment.list_of_user(db, caller, user_id, page)
    following = None if last_id is None else page.cursor_after(last_id)
    return _respond_with_list(request, body, link_header(linked({"limit": limit}), next=following))


def _respond_with_list(request: Request, body: bytes, link: str | None) -> Response:
    links = () if link is None else ((b"link", link.encode()),)
    return respond(request, _digest(body + (link or "").encode()), lambda: body, *links)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


FAST: dict[Callable[..., Any], Adapter] = {
    list_comments: list_comments_fast,
    set_comment_vote: set_comment_vote_fast,
    remove_comment_vote: remove_comment_vote_fast,
}
