"""Writing posts. Reading them is hot, and lives in feed.py."""

from collections.abc import Callable

from sqlalchemy import ColumnElement, case, delete, func, insert, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from app import models
from app.config import MODERATING, get_settings
from app.database import deletion_marks
from app.errors import DomainError, NotAuthenticated, NotAuthorized, PostNotFound, PreconditionFailed, QuotaExceeded
from app.schemas.post import PostChange, PostIn


def write(db: Session, owner: models.User, new: PostIn) -> models.Post:
    """Keep a new post. Raises `QuotaExceeded` for a draft past `MAX_DRAFTS`."""
    if not new.published:
        _require_room_for_draft(db, owner.id)
    values = {**new.model_dump(), "owner_id": owner.id}
    post = db.scalars(insert(models.Post).values(values).returning(models.Post)).one()
    post.owner = owner
    return post


def change(
    db: Session, caller: models.User, post_id: int, wanted: PostIn | PostChange, versions: frozenset[int] | None
) -> models.Post:
    """Change the caller's own post; where `versions` is given, only if the post has one of them.

    What changes nothing leaves `version` and `updated_at`. A draft that is published first counts as created then, so
    that it is new to all who read the list of new posts, or poll with `created_after`.
    One statement decides and writes, so of two changes to the same version one is refused.
    Raises `PostNotFound`, `NotAuthorized`, `PreconditionFailed`, and `QuotaExceeded` for a published post that becomes
    a draft past `MAX_DRAFTS`.
    """
    changeable = (models.Post.id == post_id, models.Post.owner_id == caller.id, _has_version(versions))
    if wanted.published is False:
        adds = select(models.Post.id).where(*changeable, models.Post.published).exists()
        _require_room_for_draft(db, caller.id, adds)
    if values := wanted.model_dump(exclude_none=True):
        # Decided in the statement: a row that another request changes meanwhile is compared as that left it.
        is_changed = or_(*(getattr(models.Post, name) != value for name, value in values.items()))
        stamps: dict[str, object] = {
            "version": models.Post.version + case((is_changed, 1), else_=0),
            "updated_at": case((is_changed, func.now()), else_=models.Post.updated_at),
        }
        if wanted.published is not None:
            stamps |= _publication(wanted.published)
        post = db.scalars(
            update(models.Post).where(*changeable).values(values | stamps).returning(models.Post)
        ).one_or_none()
    else:
        post = db.scalar(select(models.Post).where(*changeable))
    if post is None:
        raise _reason(db, caller, post_id, is_allowed=lambda owner_id: owner_id == caller.id)
    post.owner = caller
    return post


def _publication(is_published: bool) -> dict[str, object]:
    """The times of a post that becomes, or stays, published or a draft. Only the first publication counts."""
    post = models.Post
    if not is_published:
        return {
            "first_published_at": case(
                (post.published, func.coalesce(post.first_published_at, post.created_at)), else_=post.first_published_at
            )
        }
    is_first = ~post.published & post.first_published_at.is_(None)
    return {
        "created_at": case((is_first, func.now()), else_=post.created_at),
        "first_published_at": case((is_first, func.now()), else_=post.first_published_at),
    }


def remove(db: Session, caller: models.User, post_id: int, versions: frozenset[int] | None) -> None:
    """Delete the caller's own post, or, for moderators, any post. Its votes go too, in the background if many.

    The count is locked before the votes are deleted, as in every change of votes.
    Raises `PostNotFound`, `NotAuthorized`, `PreconditionFailed`.
    """
    is_allowed = true() if caller.is_moderator else models.Post.owner_id == caller.id
    removable = (
        select(models.Post.owner_id)
        .where(models.Post.id == post_id, models.Post.exists(), is_allowed, _has_version(versions))
        .with_for_update()
    )
    owner_id = db.scalar(removable)
    if owner_id is None:
        raise _reason(db, caller, post_id, is_allowed=lambda owner_id: caller.is_moderator or owner_id == caller.id)
    if owner_id != caller.id:
        _hold_moderator(db, caller.id)
    votes = db.scalar(select(models.PostStats.votes).where(models.PostStats.post_id == post_id).with_for_update())
    if (votes or 0) > deletion_marks.MAX_ROWS_AT_ONCE:
        deletion_marks.mark_post(db, post_id)
    else:
        db.execute(delete(models.Post).where(models.Post.id == post_id))


def _hold_moderator(db: Session, user_id: int) -> None:
    """Keep the account a moderator's until the transaction ends.

    Locked after the post, so that a request that waits for a post does not hold up the demotion of its caller. No
    transaction that has an account locked waits for a post of another account, so there is no circle.
    Raises `NotAuthenticated` if it is disabled or deleted by now, `NotAuthorized` if it lost its role.
    """
    active = select(models.User.role).where(models.User.id == user_id, models.User.is_active)
    role = db.scalar(active.with_for_update(read=True))
    if role is None:
        raise NotAuthenticated
    if role not in MODERATING:
        raise NotAuthorized


def _require_room_for_draft(db: Session, owner_id: int, adds: ColumnElement[bool] | None = None) -> None:
    """Raise `QuotaExceeded` if the account has `MAX_DRAFTS` and the write adds one: `adds`, or always without it.

    The account stays locked until the transaction ends, so that of two drafts at once the second counts the first.
    Publishing a draft takes no lock: it leaves fewer drafts than were counted.
    """
    db.execute(select(models.User.id).where(models.User.id == owner_id).with_for_update(key_share=True))
    maximum = get_settings().max_drafts
    draft = aliased(models.Post)
    drafts = select(draft.id).where(draft.owner_id == owner_id, ~draft.published, true() if adds is None else adds)
    if db.scalar(select(func.count()).select_from(drafts.limit(maximum).subquery())) == maximum:
        raise QuotaExceeded(maximum, "drafts")


def _has_version(versions: frozenset[int] | None) -> ColumnElement[bool]:
    return true() if versions is None else models.Post.version.in_(versions)


def _reason(db: Session, caller: models.User, post_id: int, is_allowed: Callable[[int], bool]) -> DomainError:
    """Why the statement touched no row: no such post, a draft that is not there for the caller, theirs, or changed."""
    post = db.execute(
        select(models.Post.owner_id, models.Post.published).where(models.Post.id == post_id, models.Post.exists())
    ).one_or_none()
    if post is None or not (post.published or post.owner_id == caller.id or caller.is_moderator):
        return PostNotFound(post_id)
    return PreconditionFailed() if is_allowed(post.owner_id) else NotAuthorized()
