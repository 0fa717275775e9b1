"""Moderation: reports, bans of accounts, removal of posts, comments and avatars, and the log of what moderators do."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from app.models import ModerationEntry, User
from app.schemas.page import KeysetPage
from app.services.moderation.ban import ban, unban
from app.services.moderation.removal import remove_avatar, remove_comment, remove_post, restore_comment, restore_post
from app.services.moderation.report import list_all as list_reports
from app.services.moderation.report import resolve, write

__all__ = [
    "ban", "list_log", "list_reports", "remove_avatar", "remove_comment", "remove_post", "resolve", "restore_comment",
    "restore_post", "unban", "write",
]  # fmt: skip


def list_log(db: Session, page: KeysetPage) -> Sequence[ModerationEntry]:
    """Return what moderators did, newest first."""
    moderator = joinedload(ModerationEntry.moderator).load_only(User.username, User.display_name)
    return db.scalars(
        page.select(select(ModerationEntry).options(moderator), ModerationEntry.id, is_descending=True)
    ).all()
