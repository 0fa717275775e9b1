"""What RealWorld shows beside the answers of the services: descriptions, authors and counts, by one statement each.

Which posts and comments the caller may see is decided by the services, before these statements read them by id.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, bindparam, exists, func, or_, select, text
from sqlalchemy.dialects.postgresql import BIGINT
from sqlalchemy.orm import Session

from app import models
from app.models import Follow, Post, PostStats, User, Vote
from app.models.session import FIRST_ADOPTED
from app.realworld.schemas import as_profile, slug_of, written_time
from app.schemas.types import MAX_SKIP

# How long after signing in the e-mail address and the password can be changed without the old password.
RECENT_SIGN_IN = timedelta(minutes=10)
# A list can be read up to `MAX_SKIP` and one page more. Lists without a counter are counted up to here.
MAX_ARTICLES = 20
MAX_COUNTED = MAX_SKIP + MAX_ARTICLES

_COUNT_ALL = text(f"SELECT count(*) FROM (SELECT FROM posts WHERE published LIMIT {MAX_COUNTED}) AS counted")
_COUNT_FAVORITED = text(
    f"SELECT count(*) FROM (SELECT FROM votes WHERE user_id = :user_id LIMIT {MAX_COUNTED}) AS counted"
).bindparams(bindparam("user_id", type_=BIGINT))
_COUNT_OF_TAG = text("SELECT posts FROM tag_stats JOIN tags ON tags.id = tag_stats.tag_id WHERE tags.name = :name")
# At most `FOLLOWS_MAX` users and 1,000 tags.
_COUNT_FEED = text("""
    SELECT (
        SELECT coalesce(sum(posts), 0) FROM user_stats WHERE user_id = :user_id
            OR user_id IN (SELECT followee_id FROM follows WHERE follower_id = :user_id)
    ) + (
        SELECT coalesce(sum(posts), 0) FROM tag_follows JOIN tag_stats ON tag_stats.tag_id = tag_follows.tag_id
        WHERE tag_follows.user_id = :user_id
    )
""").bindparams(bindparam("user_id", type_=BIGINT))


def articles(db: Session, viewer_id: int, post_ids: Sequence[int], *, with_body: bool) -> list[dict[str, Any]]:
    """Return the posts, in the order of their ids, as articles that the viewer reads.

    Posts that were deleted, unpublished or removed meanwhile are left out, but for the viewer's own.
    """
    rows = db.execute(
        select(
            Post.id, Post.title, Post.description, Post.tags, Post.created_at, Post.updated_at, PostStats.votes,
            User.id.label("author_id"), User.username, User.bio, User.image_url, User.avatar,
            exists().where(Vote.post_id == Post.id, Vote.user_id == viewer_id).label("voted"),
            _is_followed_by(viewer_id).label("followed"), *([Post.content] if with_body else []),
        )
        .join(User, Post.has_owner())
        .join(PostStats, PostStats.post_id == Post.id)
        .where(Post.id.in_(post_ids), or_(Post.published, Post.owner_id == viewer_id))
    )  # fmt: skip
    found = {row.id: _article(row, with_body=with_body) for row in rows}
    return [found[post_id] for post_id in post_ids if post_id in found]


def _article(row: Row[*tuple[Any, ...]], *, with_body: bool) -> dict[str, Any]:
    return {
        "slug": slug_of(row.id, row.title),
        "title": row.title,
        "description": row.description,
        **({"body": row.content} if with_body else {}),
        "tagList": row.tags,
        "createdAt": written_time(row.created_at),
        "updatedAt": written_time(row.updated_at),
        "favorited": row.voted,
        "favoritesCount": row.votes,
        "author": as_profile(row, following=row.followed),
    }


def profiles(db: Session, viewer_id: int, user_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the profiles of accounts by id, as the viewer sees them."""
    columns = (User.id, User.username, User.bio, User.image_url, User.avatar)
    rows = db.execute(select(*columns, _is_followed_by(viewer_id).label("followed")).where(User.id.in_(user_ids)))
    return {row.id: as_profile(row, following=row.followed) for row in rows}


def _is_followed_by(viewer_id: int) -> Any:
    return exists().where(Follow.follower_id == viewer_id, Follow.followee_id == User.id)


def count_all(db: Session) -> int:
    """Return the number of published posts, up to `MAX_COUNTED`: there is no counter that all writers share."""
    return int(db.scalar(_COUNT_ALL) or 0)


def count_favorited(db: Session, user_id: int) -> int:
    """Return the number of the user's votes, up to `MAX_COUNTED`."""
    return int(db.scalar(_COUNT_FAVORITED, {"user_id": user_id}) or 0)


def count_of_author(db: Session, user_id: int) -> int:
    """Return the number of the user's published posts."""
    return db.scalar(select(models.UserStats.posts).where(models.UserStats.user_id == user_id)) or 0


def count_of_tag(db: Session, name: str) -> int:
    """Return the number of published posts with the tag."""
    return int(db.scalar(_COUNT_OF_TAG, {"name": name}) or 0)


def count_feed(db: Session, user_id: int) -> int:
    """Return the posts of the user, of followed users and of followed tags, where a post may count more than once."""
    return int(db.scalar(_COUNT_FEED, {"user_id": user_id}) or 0)


def has_just_signed_in(db: Session, session_id: int) -> bool:
    """Return whether the session began with a sign-in within `RECENT_SIGN_IN`. Adopted sessions did not."""
    is_recent = models.Session.created_at > func.now() - RECENT_SIGN_IN
    is_sign_in = models.Session.id < FIRST_ADOPTED
    return bool(db.scalar(select(is_recent).where(models.Session.id == session_id, is_sign_in)))
