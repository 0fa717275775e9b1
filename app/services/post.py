"""Create, change and delete posts. Reading them is in `feed`, on the fast path."""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, false, func, insert, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from app import models
from app.config import get_settings
from app.database import comment_removal, deletion_marks, event_log, picture_use
from app.database import notification_delivery as delivery
from app.errors import DomainError, NotAuthorized, PostNotFound, PreconditionFailed, QuotaExceeded
from app.models import EventKind
from app.schemas.post import LockState, PostChange, PostIn
from app.security import moderators


def write(db: Session, owner: models.User, new: PostIn) -> models.Post:
    """Create a post, and notify who is mentioned unless it is a draft.

    Raises `QuotaExceeded` for a draft past `MAX_DRAFTS`, `MediaNotFound` and `MediaInUse`.
    """
    if not new.published:
        _require_room_for_draft(db, owner.id)
    values = {**new.model_dump(exclude={"media_ids"}), "owner_id": owner.id}
    if new.media_ids:
        picture_use.lock_account(db, owner.id)
        picture_use.lock_own(db, owner.id, new.media_ids)
        values["media"] = picture_use.as_json(db, new.media_ids)
    post = db.scalars(insert(models.Post).values(values).returning(models.Post)).one()
    post.owner = owner
    if new.media_ids:
        picture_use.attach(db, post.id, new.media_ids)
    if post.published:
        _log(db, EventKind.POST_PUBLISHED, post, _names(post))
    return post


def change(
    db: Session, caller: models.User, post_id: int, wanted: PostIn | PostChange, versions: frozenset[int] | None
) -> models.Post:
    """Change the caller's own post, if it has one of `versions` where these are given.

    A change to equal values leaves `version` and `updated_at` as they are. The first publication of a draft sets
    `created_at`. So the post is new in lists of new posts, and for clients that poll with `created_after`.
    The post is locked, so of two concurrent changes to one version the second is refused. A published text notifies
    users whom it mentions for the first time. A removed post cannot be published: the constraint `posts_removed_check`
    refuses it. If its author makes it a draft, it stays one when it is restored.
    Raises `PostNotFound`, `NotAuthorized`, `PreconditionFailed`, `MediaNotFound`, `MediaInUse`, and `QuotaExceeded` for
    a published post that becomes a draft past `MAX_DRAFTS`.
    """
    changeable = (models.Post.id == post_id, models.Post.owner_id == caller.id, _has_version(versions))
    if wanted.published is False:
        adds = select(models.Post.id).where(*changeable, models.Post.published).exists()
        _require_room_for_draft(db, caller.id, adds)
    media_ids = wanted.media_ids if "media_ids" in wanted.model_fields_set else None
    if media_ids is not None:
        picture_use.lock_account(db, caller.id)
    before = db.execute(
        select(models.Post.published, models.Post.title, models.Post.content, models.Post.version)
        .where(*changeable)
        .with_for_update(key_share=True)
    ).one_or_none()
    # Clients of the tutorial know no tags, and must not remove them.
    values = wanted.model_dump(exclude_none=True, exclude={"media_ids"} | ({"tags"} - wanted.model_fields_set))
    if media_ids is not None and before is not None:
        picture_use.lock_own(db, caller.id, media_ids, post_id=post_id)
        values["media"] = picture_use.as_json(db, media_ids)
    if values:
        # Compared in the statement, so that a concurrent change of the row is taken into account.
        is_changed = or_(*(getattr(models.Post, name) != value for name, value in values.items()))
        stamps: dict[str, object] = {
            "version": models.Post.version + case((is_changed, 1), else_=0),
            "updated_at": case((is_changed, func.now()), else_=models.Post.updated_at),
        }
        if wanted.published is not None:
            stamps |= models.Post.publication_times(wanted.published)
        if wanted.published is False:
            is_removed = models.Post.removal_reason.is_not(None)
            stamps["published_before_removal"] = case((is_removed, false()))
        post = db.scalars(
            update(models.Post).where(*changeable).values(values | stamps).returning(models.Post)
        ).one_or_none()
    else:
        post = db.scalar(select(models.Post).where(*changeable))
    if before is None or post is None:
        raise _refusal(db, caller, post_id, is_allowed=lambda owner_id: owner_id == caller.id)
    if media_ids is not None:
        picture_use.attach(db, post_id, media_ids)
    post.owner = caller
    if before.published and not post.published:
        event_log.record(db, EventKind.POST_UNPUBLISHED, actor_id=caller.id, post_id=post_id)
    elif post.published and not before.published:
        _log(db, EventKind.POST_PUBLISHED, post, _names(post))
    elif post.published and post.version != before.version:
        _log(db, EventKind.POST_EDITED, post, _names(post) - _names(before))
    return post


def _names(written: models.Post | Row[*tuple[Any, ...]]) -> set[str]:
    return {*delivery.mentioned_names(f"{written.title}\n{written.content}")}


def _log(db: Session, kind: EventKind, post: models.Post, names: Collection[str]) -> None:
    delivery.post_changed(db, kind, actor_id=post.owner_id, post_id=post.id, names=names)


def remove(db: Session, caller: models.User, post_id: int, versions: frozenset[int] | None) -> None:
    """Delete the caller's own post, or, for moderators, any post.

    The votes, bookmarks, comments and notifications are deleted, too, in the background if they are many. Comments and
    counts are locked before the votes and bookmarks (`app.database.locks`). Raises `PostNotFound`, `NotAuthorized`,
    `PreconditionFailed`.
    """
    is_allowed = true() if caller.is_moderator else models.Post.owner_id == caller.id
    removable = (
        select(models.Post.owner_id, models.Post.published)
        .where(models.Post.id == post_id, models.Post.visible_to(caller), is_allowed, _has_version(versions))
        .with_for_update()
    )
    found = db.execute(removable).one_or_none()
    if found is None:
        raise _refusal(db, caller, post_id, is_allowed=lambda owner_id: caller.is_moderator or owner_id == caller.id)
    if found.owner_id != caller.id:
        moderators.lock_moderator(db, caller.id)
        moderators.record(db, caller.id, "delete", user_id=found.owner_id, post_id=post_id)
    if found.published:
        event_log.record(db, EventKind.POST_DELETED, actor_id=caller.id, post_id=post_id, user_id=found.owner_id)
    if deletion_marks.is_large_post(db, post_id):
        deletion_marks.mark_post(db, post_id)
    else:
        comment_removal.lock_posts(db, [post_id])
        db.execute(delete(models.Post).where(models.Post.id == post_id))
        delivery.forget_posts(db, [post_id])


def set_lock(db: Session, moderator: models.User, post_id: int, *, is_locked: bool) -> LockState:
    """Lock or unlock the post. Idempotent.

    A comment that was being written when the lock was set is still accepted. Raises `PostNotFound`, and
    `NotAuthorized` for callers who are no moderators.
    """
    if not moderator.is_moderator:
        raise _refusal(db, moderator, post_id, is_allowed=lambda _: False)
    visible = (models.Post.id == post_id, models.Post.visible_to(moderator))
    changed = (
        update(models.Post)
        .where(*visible, models.Post.locked != is_locked)
        .values(locked=is_locked, version=models.Post.version + 1)
        .returning(models.Post.owner_id)
    )
    owner_id = db.scalar(changed)
    if owner_id is not None:
        moderators.lock_moderator(db, moderator.id)
        action: models.ModerationAction = "lock" if is_locked else "unlock"
        moderators.record(db, moderator.id, action, user_id=owner_id, post_id=post_id)
    elif db.scalar(select(models.Post.id).where(*visible)) is None:
        raise PostNotFound(post_id)
    return LockState(post_id=post_id, locked=is_locked)


def _require_room_for_draft(db: Session, owner_id: int, adds: ColumnElement[bool] | None = None) -> None:
    """Raise `QuotaExceeded` if the write adds a draft past `MAX_DRAFTS`.

    `adds` is the condition under which the write adds a draft; None means that it always does. The account stays
    locked until the transaction ends, so that of two concurrent drafts the second counts the first. Publishing a draft
    takes no lock, because it leaves fewer drafts than were counted.
    """
    db.execute(select(models.User.id).where(models.User.id == owner_id).with_for_update(key_share=True))
    maximum = get_settings().max_drafts
    draft = aliased(models.Post)
    drafts = select(draft.id).where(draft.owner_id == owner_id, ~draft.published, true() if adds is None else adds)
    if db.scalar(select(func.count()).select_from(drafts.limit(maximum).subquery())) == maximum:
        raise QuotaExceeded(maximum, "drafts")


def _has_version(versions: frozenset[int] | None) -> ColumnElement[bool]:
    return true() if versions is None else models.Post.version.in_(versions)


def _refusal(db: Session, caller: models.User, post_id: int, is_allowed: Callable[[int], bool]) -> DomainError:
    """Return the error for a statement that matched no row.

    The post is missing, a draft that the caller may not see, another user's, or was changed.
    """
    owner_id = db.scalar(select(models.Post.owner_id).where(models.Post.id == post_id, models.Post.visible_to(caller)))
    if owner_id is None:
        return PostNotFound(post_id)
    return PreconditionFailed() if is_allowed(owner_id) else NotAuthorized()
