"""Moderation: reports, removal of posts and comments, bans of accounts, and the log."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app import models
from app.api.authentication import CurrentUser, Moderator
from app.api.idempotency_key import IdempotentRequest, respond_once
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import (
    AlreadyReported,
    AlreadyResolved,
    CommentNotFound,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MalformedCursor,
    NotAuthenticated,
    NotAuthorized,
    NotRemovable,
    PostNotFound,
    QuotaExceeded,
    ReportNotFound,
    UserNotFound,
)
from app.middleware.problem_details import responses
from app.schemas.media import AvatarState
from app.schemas.moderation import (
    BanIn,
    BanState,
    CommentRemovalState,
    ModerationEntry,
    OwnReport,
    PostRemovalState,
    RemovalIn,
    ReportIn,
    ReportOut,
    ReportStatus,
    ResolutionIn,
)
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


@router.post(
    "/reports",
    status_code=201,
    response_model=OwnReport,
    responses=responses(
        NotAuthenticated, PostNotFound, CommentNotFound, UserNotFound, AlreadyReported, QuotaExceeded,
        IdempotencyInProgress, IdempotencyMismatch,
    ),
)  # fmt: skip
def create_report(new: ReportIn, caller: CurrentUser, db: SessionDep, idempotent: IdempotentRequest) -> Response:
    """Report a post, a comment or a user to the moderators. Only they see it."""

    def create() -> tuple[OwnReport, None]:
        return OwnReport.model_validate(moderation.write(db, caller, new)), None

    return respond_once(db, idempotent, caller.id, create)


@router.get(
    "/reports", response_model=list[ReportOut], responses=responses(NotAuthenticated, NotAuthorized, MalformedCursor)
)
def list_reports(
    _: Moderator,
    db: SessionDep,
    response: Response,
    status: Annotated[ReportStatus, Query(description="Open ones, or resolved ones.")] = "open",
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[models.Report]:
    """List open reports, oldest first, or resolved ones, the latest first. For moderators."""
    page = page_of(f"{status} reports", limit=limit, cursor=cursor)
    return cut_and_link(response, page, moderation.list_reports(db, page, status), status=status)


@router.post(
    "/reports/{id}/resolve",
    response_model=ReportOut,
    responses=responses(
        NotAuthenticated, NotAuthorized, ReportNotFound, PostNotFound, CommentNotFound, UserNotFound, AlreadyResolved,
        NotRemovable,
    ),
)  # fmt: skip
def resolve_report(
    report_id: Annotated[Id, Path(alias="id")], wanted: ResolutionIn, caller: CurrentUser, db: SessionDep
) -> models.Report:
    """Resolve a report: dismiss it, remove the content, or ban its author. For moderators.

    It resolves all open reports of the same post, comment or user, up to 1,000.
    """
    return moderation.resolve(db, caller, report_id, wanted)


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


@router.delete("/users/{id}/avatar", response_model=AvatarState, responses=BAN_RESPONSES)
def remove_avatar_of_user(user_id: UserId, caller: CurrentUser, db: SessionDep) -> AvatarState:
    """Delete the picture of a user's profile. For moderators; only admins delete that of a moderator. Idempotent."""
    moderation.remove_avatar(db, caller, user_id)
    return AvatarState(avatar=None)


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
