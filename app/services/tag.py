"""List and follow tags.

Posts have their tags in `posts.tags`. Triggers derive the tables of this module from it (migration 0035).
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import String, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app import models
from app.errors import MalformedCursor, QuotaExceeded
from app.models.base import LARGEST_KEY
from app.schemas import cursor as cursors
from app.schemas.tag import TagOut, TagSort, TagState

# Maximum number of tags that an account follows.
MAX_FOLLOWED_TAGS = 1_000
# Maximum number of index entries that one page reads.
MAX_ENTRIES_READ = 2_000

# No tag has the last code point, so this is after every tag with the prefix.
_BEGINS = "tags.name BETWEEN :prefix AND :prefix || U&'\\+10FFFF'"
_FOLLOWED = "EXISTS (SELECT FROM tag_follows WHERE user_id = :user_id AND tag_id = tags.id) AS followed"
_NAMES = f"FROM tags WHERE {_BEGINS} AND tags.name > :name ORDER BY tags.name"
_BY_NAME = text(f"""
    SELECT tags.id, tags.name, stats.posts, {_FOLLOWED} FROM (SELECT id, name {_NAMES} LIMIT :entries) AS tags
    JOIN tag_stats AS stats ON stats.tag_id = tags.id WHERE stats.posts > 0 ORDER BY tags.name LIMIT :rows
""")
_LAST_BY_NAME = text(f"SELECT name {_NAMES} OFFSET :entries - 1 LIMIT 1")
_COUNTS = """
    FROM tag_stats WHERE posts > 0 AND (posts, tag_id) < (:posts, :tag_id) {among} ORDER BY posts DESC, tag_id DESC
"""
_BY_POSTS = f"""
    SELECT tags.id, tags.name, stats.posts, {_FOLLOWED}
    FROM (SELECT tag_id, posts {_COUNTS} LIMIT :entries) AS stats JOIN tags ON tags.id = stats.tag_id
    WHERE {_BEGINS} ORDER BY stats.posts DESC, stats.tag_id DESC LIMIT :rows
"""
_POPULAR = text(_BY_POSTS.format(among=""))
_LAST_POPULAR = text(f"SELECT posts, tag_id {_COUNTS.format(among='')} OFFSET :entries - 1 LIMIT 1")
_POPULAR_AMONG = text(_BY_POSTS.format(among="AND tag_id = ANY (:ids)")).bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)
# At most `MAX_FOLLOWED_TAGS` rows are sorted.
_FOLLOWED_BY_NAME = text(f"""
    SELECT tags.id, tags.name, stats.posts, true AS followed
    FROM tag_follows JOIN tags ON tags.id = tag_follows.tag_id JOIN tag_stats AS stats ON stats.tag_id = tags.id
    WHERE tag_follows.user_id = :user_id AND {_BEGINS} AND tags.name > :name ORDER BY tags.name LIMIT :rows
""")
_IDS_OF_PREFIX = text(f"SELECT id FROM tags WHERE {_BEGINS} LIMIT :entries + 1")


class TagPage(NamedTuple):
    """Tags in order, and the cursor of the page that follows."""

    tags: Sequence[TagOut]
    next_cursor: str | None


def list_tags(
    db: Session, caller: models.User, *, prefix: str, sort: TagSort, limit: int, cursor: str | None
) -> TagPage:
    """Return tags of published posts, by name or by descending number of posts.

    A page reads at most `MAX_ENTRIES_READ` entries of its index. So a page before the end may have fewer tags than
    `limit`, or none: by name, where many tags have no posts; by posts, where more tags have the prefix, but few popular
    ones. Raises `MalformedCursor`.
    """
    values = {"prefix": prefix, "user_id": caller.id, "entries": MAX_ENTRIES_READ, "rows": limit + 1}
    values |= _position(sort, cursor)
    page, last_entry = (_BY_NAME, _LAST_BY_NAME) if sort == "name" else (_POPULAR, _LAST_POPULAR)
    if sort == "popular" and prefix:
        ids = db.scalars(_IDS_OF_PREFIX, values).all()
        if len(ids) <= MAX_ENTRIES_READ:
            page, values["ids"] = _POPULAR_AMONG, ids
    rows = db.execute(page, values).all()
    tags = [TagOut.model_validate(row) for row in rows[:limit]]
    if len(rows) > limit:
        shown = rows[limit - 1]
        return TagPage(
            tags, cursors.sign(["tags", sort, *((shown.name,) if sort == "name" else (shown.posts, shown.id))])
        )
    last = None if page is _POPULAR_AMONG else db.execute(last_entry, values).one_or_none()
    return TagPage(tags, None if last is None else cursors.sign(["tags", sort, *last]))


def list_followed(db: Session, caller: models.User, *, prefix: str, limit: int, cursor: str | None) -> TagPage:
    """Return the tags that the caller follows by name, also those without posts. Raises `MalformedCursor`."""
    match cursors.verify(cursor) if cursor else ["tags", "followed", ""]:
        case ["tags", "followed", str() as name]:
            pass
        case _:
            raise MalformedCursor
    values = {"prefix": prefix, "user_id": caller.id, "name": name, "rows": limit + 1}
    rows = db.execute(_FOLLOWED_BY_NAME, values).all()
    tags = [TagOut.model_validate(row) for row in rows[:limit]]
    return TagPage(tags, cursors.sign(["tags", "followed", tags[-1].name]) if len(rows) > limit else None)


def _position(sort: TagSort, cursor: str | None) -> dict[str, str | int]:
    """Return the values of the last entry that the cursor's page has read."""
    if not cursor:
        return {"name": ""} if sort == "name" else {"posts": 2**31 - 1, "tag_id": LARGEST_KEY}
    match cursors.verify(cursor):
        case ["tags", "name", str() as name] if sort == "name":
            return {"name": name}
        case ["tags", "popular", int() as posts, int() as tag_id] if sort == "popular":
            return {"posts": posts, "tag_id": tag_id}
    raise MalformedCursor


_COUNT_OTHERS = text("""
    SELECT count(*) FROM (
        SELECT FROM tag_follows
        WHERE user_id = :user_id AND tag_id IS DISTINCT FROM (SELECT id FROM tags WHERE name = :name) LIMIT :maximum
    ) AS other
""")
_CREATE = text("SELECT create_tags(ARRAY[:name])").bindparams(bindparam("name", type_=String))
_FOLLOW = text("""
    INSERT INTO tag_follows (user_id, tag_id) SELECT :user_id, id FROM tags WHERE name = :name ON CONFLICT DO NOTHING
""")
_UNFOLLOW = text("""
    DELETE FROM tag_follows USING tags WHERE user_id = :user_id AND tag_id = tags.id AND tags.name = :name
""")
_STATE = text(f"""
    SELECT tags.name, stats.posts, stats.followers, {_FOLLOWED}
    FROM tags JOIN tag_stats AS stats ON stats.tag_id = tags.id WHERE tags.name = :name
""")


def follow(db: Session, caller: models.User, name: str) -> TagState:
    """Follow the tag, which needs no posts yet. Raises `QuotaExceeded` past `MAX_FOLLOWED_TAGS`."""
    values = {"user_id": caller.id, "name": name}
    _lock(db, caller)
    if db.scalar(_COUNT_OTHERS, {**values, "maximum": MAX_FOLLOWED_TAGS}) == MAX_FOLLOWED_TAGS:
        raise QuotaExceeded(MAX_FOLLOWED_TAGS, "followed tags")
    db.execute(_CREATE, values)
    db.execute(_FOLLOW, values)
    return _state(db, caller, name)


def unfollow(db: Session, caller: models.User, name: str) -> TagState:
    """Stop following the tag."""
    _lock(db, caller)
    db.execute(_UNFOLLOW, {"user_id": caller.id, "name": name})
    return _state(db, caller, name)


def get(db: Session, caller: models.User, name: str) -> TagState:
    """Return the tag; zeros for one without posts and followers."""
    return _state(db, caller, name)


def _lock(db: Session, caller: models.User) -> None:
    """Lock the account, before its follows and the counts of tags (`app.database.locks`).

    So of two follows at once, the second counts the first.
    """
    db.execute(select(models.User.id).where(models.User.id == caller.id).with_for_update(key_share=True))


def _state(db: Session, caller: models.User, name: str) -> TagState:
    row = db.execute(_STATE, {"user_id": caller.id, "name": name}).one_or_none()
    if row is None:
        return TagState(name=name, posts=0, followers=0, followed=False)
    return TagState.model_validate(row)
