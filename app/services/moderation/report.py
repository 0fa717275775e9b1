"""Reports: write them, list the queue, and resolve them."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.interfaces import ORMOption

from app.errors import (
    AlreadyResolved,
    CommentNotFound,
    NotAuthenticated,
    NotAuthorized,
    NotRemovable,
    PostNotFound,
    QuotaExceeded,
    ReportNotFound,
    UserNotFound,
)
from app.models import Comment, Post, Report, User
from app.schemas.moderation import BanIn, ReportIn, ResolutionIn
from app.schemas.page import KeysetPage
from app.security import moderators
from app.services.moderation.ban import ban
from app.services.moderation.removal import remove_comment, remove_post

# Of one reporter.
MAX_OPEN_REPORTS = 100
# How many reports of a thing are resolved together.
MAX_RESOLVED_TOGETHER = 1_000


def write(db: Session, reporter: User, new: ReportIn) -> Report:
    """Report a post, a comment or an account that the reporter can see.

    The lock of the reporter's account serializes their reports, so that each counts those before. A unique index
    refuses a second open report of the same thing. Raises `QuotaExceeded` past `MAX_OPEN_REPORTS`, `PostNotFound`,
    `CommentNotFound` and `UserNotFound`.
    """
    account = select(User.id).where(User.id == reporter.id, User.is_active).with_for_update(key_share=True)
    if db.scalar(account) is None:
        raise NotAuthenticated
    is_open = Report.reporter_id == reporter.id, Report.resolved_at.is_(None)
    # In the order of the index of reporters: of one with many resolved reports, all open ones of others were read.
    open_reports = select(Report.id).where(*is_open).order_by(Report.resolved_at).limit(MAX_OPEN_REPORTS)
    if db.scalar(select(func.count()).select_from(open_reports.subquery())) == MAX_OPEN_REPORTS:
        raise QuotaExceeded(MAX_OPEN_REPORTS, "open reports", remedy="wait until moderators have resolved one")
    _author_of(db, reporter, new)
    return db.scalars(insert(Report).values(reporter_id=reporter.id, **new.model_dump()).returning(Report)).one()


def list_all(db: Session, page: KeysetPage, status: Literal["open", "resolved"]) -> Sequence[Report]:
    """Return the open reports, oldest first, or the resolved ones, the latest first."""
    reports = select(Report).options(*_people())
    if status == "open":
        return db.scalars(page.select(reports.where(Report.resolved_at.is_(None)), Report.id)).all()
    resolved = reports.where(Report.resolved_at.is_not(None))
    return db.scalars(page.select_newest(resolved, Report.resolved_at, Report.id)).all()


def resolve(db: Session, moderator: User, report_id: int, wanted: ResolutionIn) -> Report:
    """Dismiss the report, or remove the content or ban its author; and resolve all open reports of the same thing.

    The reports are locked last. Of two moderators at once, the second gets `AlreadyResolved`, and changes nothing.
    Moderators dismiss no report about themselves, unless they are admins.
    Raises `ReportNotFound`, `NotAuthorized`, `NotRemovable` for an account, and, to remove or ban, `PostNotFound`,
    `CommentNotFound` and `UserNotFound` if what was reported is deleted.
    """
    if not moderator.is_moderator:
        raise NotAuthorized
    report = db.get(Report, report_id)
    if report is None:
        raise ReportNotFound(report_id)
    note = wanted.note or ""
    if wanted.action == "dismiss":
        author_id = None
        with suppress(PostNotFound, CommentNotFound, UserNotFound):
            author_id = _author_of(db, moderator, report)
        moderators.lock_moderator(db, moderator.id, clears=author_id)
        moderators.record(
            db, moderator.id, "dismiss",
            user_id=report.user_id, post_id=report.post_id, comment_id=report.comment_id, report_id=report_id,
            reason=wanted.note,
        )  # fmt: skip
    elif wanted.action == "ban":
        author_id = _author_of(db, moderator, report)
        ban(db, moderator, author_id, BanIn(reason=note, until=wanted.until), report_id=report_id)
    elif report.post_id is not None:
        remove_post(db, moderator, report.post_id, note, report_id=report_id)
    elif report.comment_id is not None:
        remove_comment(db, moderator, report.comment_id, note, report_id=report_id)
    else:
        raise NotRemovable
    if report_id not in _close(db, moderator, report, wanted):
        raise AlreadyResolved
    shown = select(Report).where(Report.id == report_id).options(*_people())
    return db.scalars(shown.execution_options(populate_existing=True)).one()


def _people() -> list[ORMOption]:
    return [joinedload(one).load_only(User.username, User.display_name) for one in (Report.reporter, Report.resolver)]


def _author_of(db: Session, viewer: User, thing: ReportIn | Report) -> int:
    """Return the author of what is reported, or the account, if the viewer can see it."""
    if thing.post_id is not None:
        owner_id = db.scalar(select(Post.owner_id).where(Post.id == thing.post_id, Post.visible_to(viewer)))
        error: Exception = PostNotFound(thing.post_id)
    elif thing.comment_id is not None:
        is_shown = and_(Comment.visible_to(viewer), Comment.is_shown_to(viewer))
        owner_id = db.scalar(select(Comment.owner_id).where(Comment.id == thing.comment_id, is_shown))
        error = CommentNotFound(thing.comment_id)
    else:
        owner_id = db.scalar(select(User.id).where(User.id == thing.user_id, ~User.is_deleted))
        error = UserNotFound(thing.user_id or 0)
    if owner_id is None:
        raise error
    return owner_id


def _close(db: Session, moderator: User, report: Report, wanted: ResolutionIn) -> Sequence[int]:
    """Resolve the open reports of the thing, this one among the first. Return their ids."""
    # None is compared with IS NULL.
    is_same: ColumnElement[bool] = and_(
        Report.post_id == report.post_id, Report.comment_id == report.comment_id, Report.user_id == report.user_id
    )
    is_open = Report.resolved_at.is_(None)
    # In the order of the unique index, so that of many reports of one thing only these are read.
    in_order = Report.post_id, Report.comment_id, Report.user_id, Report.reporter_id
    same = select(Report.id).where(is_same, is_open).order_by(*in_order).limit(MAX_RESOLVED_TOGETHER - 1)
    is_one = or_(Report.id == report.id, Report.id == func.any(func.array(same.scalar_subquery())))
    locked = select(Report.id).where(is_one, is_open).order_by(Report.id).with_for_update().cte("locked")
    values = {"resolved_at": func.now(), "resolver_id": moderator.id, "action": wanted.action, "note": wanted.note}
    closed = update(Report).where(Report.id.in_(select(locked.c.id))).values(values).returning(Report.id)
    return db.scalars(closed.execution_options(synchronize_session=False)).all()
