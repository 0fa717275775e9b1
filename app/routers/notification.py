"""`/notifications` and `/posts/{id}/mute`: list, count and mark notifications, and mute posts."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app import models
from app.api.authentication import ScopedUser
from app.api.pagination import link_header, linked
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import MalformedCursor, NotAuthenticated, PostNotFound, QuotaExceeded
from app.middleware.problem_details import responses
from app.schemas.notification import MuteState, NotificationOut, ReadUpTo, UnreadByKind, UnreadCount
from app.schemas.page import page_of
from app.schemas.types import Cursor, Id, Limit
from app.schemas.user import UserSummary
from app.services import notification

router = APIRouter(tags=["notifications"], route_class=Route)

PostId = Annotated[Id, Path(alias="id")]


@router.get(
    "/notifications", response_model=list[NotificationOut], responses=responses(NotAuthenticated, MalformedCursor)
)
def list_notifications(
    caller: ScopedUser,
    db: SessionDep,
    response: Response,
    unread: Annotated[bool, Query(description="`true`: only unread ones.")] = False,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[NotificationOut]:
    """List your notifications, newest first.

    Those about users, posts or comments that you cannot see now are left out.
    """
    page = page_of("notifications", limit=limit, cursor=cursor)
    found = notification.list_own(db, caller, page, only_unread=unread)
    if found.next_after is not None:
        repeated = linked({"limit": limit, "unread": unread or None})
        response.headers["Link"] = link_header(repeated, next=page.cursor_after(found.next_after)) or ""
    return [
        NotificationOut(
            id=row.id,
            kind=row.kind,
            actor=None
            if row.actor_id is None
            else UserSummary(id=row.actor_id, username=row.username, display_name=row.display_name, avatar=row.avatar),
            post_id=row.post_id,
            comment_id=row.comment_id,
            created_at=row.created_at,
            read_at=row.read_at,
        )
        for row in found.rows
    ]


@router.get("/notifications/unread-count", response_model=UnreadCount, responses=responses(NotAuthenticated))
def get_unread_count(caller: ScopedUser, db: SessionDep) -> UnreadCount:
    """Count your unread notifications.

    The newest 1,000 are counted, so 1,000 means that many or more.
    """
    return _unread(db, caller)


@router.post("/notifications/read", response_model=UnreadCount, responses=responses(NotAuthenticated))
def mark_notifications_read(wanted: ReadUpTo, caller: ScopedUser, db: SessionDep) -> UnreadCount:
    """Mark a notification and all older ones as read.

    It marks the newest 1,000 of them. If the counts in the response show that more are left, send it again.
    """
    notification.mark_read(db, caller, wanted.up_to)
    return _unread(db, caller)


def _unread(db: SessionDep, caller: models.User) -> UnreadCount:
    counts = notification.count_unread(db, caller)
    return UnreadCount(unread=sum(counts.values()), by_kind=UnreadByKind(**counts))


@router.get("/posts/{id}/mute", response_model=MuteState, responses=responses(NotAuthenticated, PostNotFound))
def get_mute(post_id: PostId, caller: ScopedUser, db: SessionDep) -> MuteState:
    """Get whether you have muted a post.

    A draft is 404, because it has no notifications.
    """
    return MuteState(post_id=post_id, muted=notification.is_muted(db, caller, post_id))


@router.put(
    "/posts/{id}/mute", response_model=MuteState, responses=responses(NotAuthenticated, PostNotFound, QuotaExceeded)
)
def set_mute(post_id: PostId, caller: ScopedUser, db: SessionDep) -> MuteState:
    """Mute a post: you get no notifications about it and its comments. Idempotent. Only you know."""
    notification.mute(db, caller, post_id)
    return MuteState(post_id=post_id, muted=True)


@router.delete("/posts/{id}/mute", response_model=MuteState, responses=responses(NotAuthenticated, PostNotFound))
def remove_mute(post_id: PostId, caller: ScopedUser, db: SessionDep) -> MuteState:
    """Unmute a post. Idempotent."""
    notification.unmute(db, caller, post_id)
    return MuteState(post_id=post_id, muted=False)
