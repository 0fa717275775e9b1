"""Moderation: removal of posts and comments, bans of accounts, and the log."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app import models
from app.api.authentication import CurrentUser, Moderator
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import CommentNotFound, MalformedCursor, NotAuthenticated, NotAuthorized, PostNotFound, UserNotFound
from app.middleware.problem_details import responses
from app.schemas.moderation import BanIn, BanState, CommentRemovalState, ModerationEntry, PostRemovalState, RemovalIn
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.services import moderation

router = APIRouter(tags=["moderation"], route_class=Route)

UserId = Annotated[Id, Path(alias="id")]
PostId = Annotated[Id, Path(alias="id")]
POST_RESPONSES = responses(NotAuthenticated, NotAuthorized, PostNotFound)
CommentId = Annotated[Id, Path(alias="id")]
COMMENT_RESPONSES = responses(NotAuthenticated, NotAuthorized, CommentNotFound)
BAN_RESPONSES = responses(NotAuthenticated, NotAuthorized, UserNotFound)


@router.post("/posts/{id}/remove", response_model=PostRemovalState, responses=POST_RESPONSES)
def remove_post(post_id: PostId, wanted: RemovalIn, caller: CurrentUser, db: SessionDep) -> PostRemovalState:
    """Remove a post, so that only its author and moderators see it. For moderators. Idempotent.

    The author sees the reason, and cannot publish the post. A second removal replaces the reason.
    """
    return moderation.remove_post(db, caller, post_id, wanted.reason)


@router.post("/posts/{id}/restore", response_model=PostRemovalState, responses=POST_RESPONSES)
def restore_post(post_id: PostId, caller: CurrentUser, db: SessionDep) -> PostRemovalState:
    """Restore a removed post, as it was before. For moderators. Idempotent."""
    return moderation.restore_post(db, caller, post_id)


@router.post("/comments/{id}/remove", response_model=CommentRemovalState, responses=COMMENT_RESPONSES)
def remove_comment(
    comment_id: CommentId, wanted: RemovalIn, caller: CurrentUser, db: SessionDep
) -> CommentRemovalState:
    """Remove a comment, so that only its author and moderators see it. For moderators. Idempotent.

    The author sees the reason. Others see that it is `deleted` if it has replies. A second removal replaces the reason.
    """
    return moderation.remove_comment(db, caller, comment_id, wanted.reason)


@router.post("/comments/{id}/restore", response_model=CommentRemovalState, responses=COMMENT_RESPONSES)
def restore_comment(comment_id: CommentId, caller: CurrentUser, db: SessionDep) -> CommentRemovalState:
    """Restore a removed comment. For moderators. Idempotent."""
    return moderation.restore_comment(db, caller, comment_id)


@router.post("/users/{id}/ban", response_model=BanState, responses=BAN_RESPONSES)
def ban_user(user_id: UserId, wanted: BanIn, caller: CurrentUser, db: SessionDep) -> BanState:
    """Ban a user, until a time or without end. For moderators; only admins ban moderators. Idempotent.

    It ends the user's sessions and API keys at once. A second ban replaces the first.
    """
    return moderation.ban(db, caller, user_id, wanted)


@router.post("/users/{id}/unban", response_model=BanState, responses=BAN_RESPONSES)
def unban_user(user_id: UserId, caller: CurrentUser, db: SessionDep) -> BanState:
    """End the ban of a user. For moderators; only admins unban moderators. Idempotent."""
    return moderation.unban(db, caller, user_id)


@router.get(
    "/moderation-log",
    response_model=list[ModerationEntry],
    responses=responses(NotAuthenticated, NotAuthorized, MalformedCursor),
)
def list_moderation_log(
    _: Moderator,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[models.ModerationEntry]:
    """List what moderators did, newest first. For moderators."""
    page = page_of("moderation_log", limit=limit, cursor=cursor)
    return cut_and_link(response, page, moderation.list_log(db, page))
