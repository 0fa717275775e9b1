"""Remove posts and comments, and restore them. Delete pictures of profiles.

A removed post is not published. So all that hides drafts hides it, and triggers correct the counts. Its author can read
it with the reason, change and delete it, but not publish it (the constraint `posts_removed_check`).

A removed comment does not count. Others see a tombstone if it has replies, and nothing otherwise.
"""

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.orm import Session

from app.database import event_log, notification_delivery
from app.errors import CommentNotFound, NotAuthorized, PostNotFound
from app.models import Comment, EventKind, Media, Post, User
from app.schemas.moderation import CommentRemovalState, PostRemovalState
from app.security import moderators
from app.services.moderation.ban import lock_account


def remove_post(
    db: Session, moderator: User, post_id: int, reason: str, *, report_id: int | None = None
) -> PostRemovalState:
    """Remove the post, or replace the reason of its removal.

    The row is locked by the update, so of two removals at once the second finds the state before the first in
    `published_before_removal`. Raises `PostNotFound`, and `NotAuthorized` for callers who are no moderators.
    """
    was_published, owner_id = _lock_post(db, moderator, post_id)
    removed = {
        "published": False,
        "published_before_removal": func.coalesce(Post.published_before_removal, Post.published),
        "removal_reason": reason,
        "version": Post.version + 1,
        **Post.publication_times(is_published=False),
    }
    db.execute(update(Post).where(Post.id == post_id).values(removed))
    if was_published:
        event_log.record(db, EventKind.POST_UNPUBLISHED, actor_id=moderator.id, post_id=post_id)
    _tell(db, moderator, owner_id, post_id)
    moderators.record(db, moderator.id, "remove", user_id=owner_id, post_id=post_id, report_id=report_id, reason=reason)
    return PostRemovalState(post_id=post_id, removed=True, reason=reason)


def restore_post(db: Session, moderator: User, post_id: int) -> PostRemovalState:
    """Give the post back its state from before its removal. Idempotent. Raises as `remove_post`.

    It keeps the time of its publication, and sends no second notification of what it mentions. Moderators restore no
    post of their own, unless they are admins.
    """
    _, owner_id = _lock_post(db, moderator, post_id, clears=True)
    restored = {
        "published": Post.published_before_removal,
        "published_before_removal": null(),
        "removal_reason": null(),
        "version": Post.version + 1,
    }
    is_removed = Post.removal_reason.is_not(None)
    is_published = db.scalar(
        update(Post).where(Post.id == post_id, is_removed).values(restored).returning(Post.published)
    )
    if is_published is not None:
        if is_published:
            event_log.record(db, EventKind.POST_PUBLISHED, actor_id=owner_id, post_id=post_id)
        _tell(db, moderator, owner_id, post_id)
        moderators.record(db, moderator.id, "restore", user_id=owner_id, post_id=post_id)
    return PostRemovalState(post_id=post_id, removed=False, reason=None)


def _lock_post(db: Session, moderator: User, post_id: int, *, clears: bool = False) -> tuple[bool, int]:
    """Lock the post, then the moderator's account. Return whether it is published, and its author."""
    visible = select(Post.published, Post.owner_id).where(Post.id == post_id, Post.visible_to(moderator))
    if moderator.is_moderator:
        visible = visible.with_for_update(key_share=True)
    found = db.execute(visible).one_or_none()
    if found is None:
        raise PostNotFound(post_id)
    if not moderator.is_moderator:
        raise NotAuthorized
    moderators.lock_moderator(db, moderator.id, clears=found.owner_id if clears else None)
    return found.published, found.owner_id


def _tell(db: Session, moderator: User, owner_id: int, post_id: int, comment_id: int | None = None) -> None:
    if owner_id != moderator.id:
        notification_delivery.moderated(db, owner_id, post_id=post_id, comment_id=comment_id)


def remove_comment(
    db: Session, moderator: User, comment_id: int, reason: str, *, report_id: int | None = None
) -> CommentRemovalState:
    """Remove the comment, or replace the reason of its removal.

    Raises `CommentNotFound`, also for tombstones, and `NotAuthorized` for callers who are no moderators.
    """
    owner_id, post_id = _lock_comment(db, moderator, comment_id)
    changed = update(Comment).where(Comment.id == comment_id)
    db.execute(changed.values(removal_reason=reason, version=Comment.version + 1))
    _tell(db, moderator, owner_id, post_id, comment_id)
    moderators.record(
        db, moderator.id, "remove",
        user_id=owner_id, post_id=post_id, comment_id=comment_id, report_id=report_id, reason=reason,
    )  # fmt: skip
    return CommentRemovalState(comment_id=comment_id, removed=True, reason=reason)


def restore_comment(db: Session, moderator: User, comment_id: int) -> CommentRemovalState:
    """Restore the comment, which is not the moderator's own. Idempotent. Raises as `remove_comment`."""
    owner_id, post_id = _lock_comment(db, moderator, comment_id, clears=True)
    removed = update(Comment).where(Comment.id == comment_id, Comment.removal_reason.is_not(None))
    restored = removed.values(removal_reason=None, version=Comment.version + 1).returning(Comment.id)
    if db.scalar(restored) is not None:
        _tell(db, moderator, owner_id, post_id, comment_id)
        moderators.record(db, moderator.id, "restore", user_id=owner_id, post_id=post_id, comment_id=comment_id)
    return CommentRemovalState(comment_id=comment_id, removed=False, reason=None)


def _lock_comment(db: Session, moderator: User, comment_id: int, *, clears: bool = False) -> tuple[int, int]:
    """Lock the comment, then the moderator's account. Return its author and its post."""
    shown = select(Comment.owner_id, Comment.post_id).where(
        Comment.id == comment_id, Comment.visible_to(moderator), Comment.is_shown_to(moderator)
    )
    if moderator.is_moderator:
        shown = shown.with_for_update(key_share=True)
    found = db.execute(shown).one_or_none()
    if found is None or found.owner_id is None:
        raise CommentNotFound(comment_id)
    if not moderator.is_moderator:
        raise NotAuthorized
    moderators.lock_moderator(db, moderator.id, clears=found.owner_id if clears else None)
    return found.owner_id, found.post_id


def remove_avatar(db: Session, moderator: User, user_id: int) -> None:
    """Delete the picture that the profile shows. Idempotent.

    Raises `UserNotFound`, and `NotAuthorized` unless the moderator's role is above.
    """
    lock_account(db, moderator, user_id)
    shown = delete(Media).where(Media.owner_id == user_id, Media.is_avatar).returning(Media.id)
    if db.scalar(shown) is not None:
        notification_delivery.moderated(db, user_id)
        moderators.record(db, moderator.id, "remove", user_id=user_id)
