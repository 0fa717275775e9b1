"""`/posts`: list, read, create, change and delete posts."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from app import models
from app.api import batch_queues
from app.api.authentication import CurrentUser, PublicToken, ScopedUser, network_of_anonymous, public_credential
from app.api.conditional import CONDITIONAL, IF_NONE_MATCH, IfMatch, expected_versions, respond_with_post
from app.api.fast_path import Adapter, path_id
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import read_query, respond_with_page
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    CredentialMissing,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MalformedCursor,
    MediaInUse,
    MediaNotFound,
    NotAuthenticated,
    NotAuthorized,
    Overloaded,
    PostNotFound,
    PreconditionFailed,
    QuotaExceeded,
    Removed,
    StillReferenced,
)
from app.middleware.problem_details import headers, responses
from app.models.post import FIRST_VERSION
from app.schemas.post import LockState, PageParameters, PostChange, PostIn, PostOut, PostWithVotes
from app.schemas.types import MAX_SKIP, Id
from app.security.access_tokens import ANONYMOUS
from app.services import feed, post

router = APIRouter(prefix="/posts", tags=["posts"], route_class=Route)

SKIPS_TOO_FAR = {
    "type": "less_than_equal",
    "loc": ("query", "skip"),
    "msg": f"Input should be less than or equal to {MAX_SKIP}",
}
PostId = Annotated[Id, Path(alias="id")]


@router.get(
    "",
    response_model=list[PostWithVotes],
    responses={**CONDITIONAL, **responses(NotAuthenticated, MalformedCursor, Overloaded)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def list_posts(token: PublicToken, request: Request) -> Response:
    """List posts with their vote counts.

    `Link` has the addresses of the next and previous pages. A page may have fewer posts than `limit`; the list ends
    where `Link` has no `next`. In `top` and `hot`, a post that gains or loses votes while you follow `Link` may appear
    twice or not at all. Drafts are listed with `published=false` only. If the server allows it (`PUBLIC_READS`),
    published posts can be read without an account.
    """
    wanted, linked = read_query(PageParameters, request.scope["query_string"])
    is_drafts = wanted.published is False
    if is_drafts and token == ANONYMOUS:
        raise CredentialMissing
    position = feed.position_of(wanted.cursor, wanted.sort) if wanted.cursor else None
    words = wanted.search or None
    if position is not None and position.search is not None:
        if words not in {None, position.search}:
            raise MalformedCursor
        words = position.search
    query = feed.PageQuery(
        order=wanted.sort,
        limit=wanted.limit,
        skip=min(wanted.skip, MAX_SKIP),
        search=words,
        owner_id=token.user_id if is_drafts and wanted.owner_id is None else wanted.owner_id,
        is_drafts=is_drafts,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        tag=wanted.tag,
        position=position,
    )
    result = await batch_queues.read_page(feed.PageRequest(token, query, network_of_anonymous(token)))
    if wanted.skip > MAX_SKIP and position is None and result.page.rows:
        # TUTORIAL_DEFAULTS allows it only past the end of a list. Here an empty page would look like the end.
        raise RequestValidationError([SKIPS_TOO_FAR])
    return respond_with_page(request, result, linked)


async def list_posts_fast(request: Request) -> Response:
    """Adapter of `list_posts` for the fast path."""
    return await list_posts(await public_credential(request), request)


@router.post(
    "",
    status_code=201,
    response_model=PostOut,
    responses={
        201: headers("ETag", "Location"),
        **responses(
            NotAuthenticated, MediaNotFound, MediaInUse, QuotaExceeded, IdempotencyInProgress, IdempotencyMismatch
        ),
    },
)  # fmt: skip
def create_post(
    new: PostIn, caller: ScopedUser, db: SessionDep, idempotent: IdempotentRequest, request: Request
) -> Response:
    """Create a post."""

    def create() -> tuple[PostOut, str]:
        written = post.write(db, caller, new)
        return _flat(written), f"/posts/{written.id}"

    response = respond_once(db, idempotent, caller.id, create, http_request=request)
    response.headers["ETag"] = f'"{FIRST_VERSION}"'  # Also correct for a stored response, which is of that version.
    return response


@router.get(
    "/{id}",
    response_model=PostWithVotes,
    responses={**CONDITIONAL, **responses(NotAuthenticated, PostNotFound, Overloaded)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_post(
    post_id: PostId,
    token: PublicToken,
    request: Request,
) -> Response:
    """Get a post with its vote count.

    A draft, and a post that a moderator has removed, is 404 for others than its owner and moderators.
    """
    page_request = feed.PageRequest(token, feed.PostQuery(post_id), network_of_anonymous(token))
    return respond_with_post(request, await batch_queues.read_page(page_request))


async def get_post_fast(request: Request) -> Response:
    """Adapter of `get_post` for the fast path."""
    return await get_post(path_id(request), await public_credential(request), request)


CHANGE_ERRORS = (NotAuthenticated, NotAuthorized, PostNotFound, PreconditionFailed)
CHANGE_RESPONSES = {
    200: headers("ETag"),
    **responses(*CHANGE_ERRORS, Removed, MediaNotFound, MediaInUse, QuotaExceeded),
}


@router.put("/{id}", response_model=PostOut, responses=CHANGE_RESPONSES)
def replace_post(
    post_id: PostId, new: PostIn, caller: ScopedUser, db: SessionDep, response: Response, if_match: IfMatch = None
) -> PostOut:
    """Replace your post. Without `published` it becomes a published post.

    Without `tags` or `media_ids` it keeps its tags or pictures.
    """
    return _changed(post.change(db, caller, post_id, new, expected_versions(if_match)), response)


@router.patch("/{id}", response_model=PostOut, responses=CHANGE_RESPONSES)
def change_post(
    post_id: PostId,
    wanted: PostChange,
    caller: ScopedUser,
    db: SessionDep,
    response: Response,
    if_match: IfMatch = None,
) -> PostOut:
    """Change parts of your post. Fields that you leave out keep their values."""
    return _changed(post.change(db, caller, post_id, wanted, expected_versions(if_match)), response)


@router.delete("/{id}", status_code=204, responses=responses(*CHANGE_ERRORS, StillReferenced))
def delete_post(post_id: PostId, caller: ScopedUser, db: SessionDep, if_match: IfMatch = None) -> None:
    """Delete your post. Moderators can delete every post."""
    post.remove(db, caller, post_id, expected_versions(if_match))


LOCK_RESPONSES = responses(NotAuthenticated, NotAuthorized, PostNotFound)


@router.post("/{id}/lock", response_model=LockState, responses=LOCK_RESPONSES)
def lock_post(post_id: PostId, caller: CurrentUser, db: SessionDep) -> LockState:
    """Lock a post, so that it accepts no comments. For moderators. Idempotent.

    It changes the version of the post (`ETag`). Admins make moderators: `role` of `PATCH /users/{id}`.
    """
    return post.set_lock(db, caller, post_id, is_locked=True)


@router.post("/{id}/unlock", response_model=LockState, responses=LOCK_RESPONSES)
def unlock_post(post_id: PostId, caller: CurrentUser, db: SessionDep) -> LockState:
    """Unlock a post. For moderators. Idempotent."""
    return post.set_lock(db, caller, post_id, is_locked=False)


def _changed(changed: models.Post, response: Response) -> PostOut:
    response.headers["ETag"] = f'"{changed.version}"'
    return _flat(changed)


def _flat(written: models.Post) -> PostOut:
    """Return the post for its owner, with the owner's real e-mail address."""
    return PostOut.model_validate(written)


FAST: dict[Callable[..., Any], Adapter] = {list_posts: list_posts_fast, get_post: get_post_fast}
