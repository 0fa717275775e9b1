"""The use of pictures by posts and profiles: a picture has one use, or none.

All writers of a user's pictures lock the account first, so that they follow one another. Deletions of posts do not,
but lock the post before the pictures, as everything here does (`app.database.locks`).
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app.errors import MediaInUse, MediaNotFound, NotAuthenticated
from app.models import Media, User

_IDS = bindparam("ids", type_=ARRAY(BIGINT))
_AS_JSON = text("""
    SELECT coalesce(json_agg(media_as_json(media) ORDER BY array_position(:ids, media.id))::text, '[]')
    FROM media WHERE media.id = ANY (:ids)
""").bindparams(_IDS)
# One statement, after which the trigger finds `posts.media` equal already.
_ATTACH = text("""
    UPDATE media SET post_id = CASE WHEN id = ANY (:ids) THEN :post_id END, position = array_position(:ids, id),
        unused_since = CASE WHEN id = ANY (:ids) THEN NULL ELSE now() END
    WHERE post_id = :post_id OR id = ANY (:ids)
""").bindparams(_IDS, bindparam("post_id", type_=BIGINT))


def lock_account(db: Session, user_id: int) -> None:
    """Lock the account until the transaction ends. Raises `NotAuthenticated` if it is gone or disabled."""
    account = select(User.id).where(User.id == user_id, User.is_active, ~User.is_deleted)
    if db.scalar(account.with_for_update(key_share=True)) is None:
        raise NotAuthenticated


def lock_own(
    db: Session, owner_id: int, ids: Sequence[int], *, post_id: int | None = None, is_for_profile: bool = False
) -> None:
    """Lock these pictures until the transaction ends, for a use by this post, by a new one, or by the profile.

    The account must be locked. Raises `MediaNotFound` for pictures that are not the owner's, and `MediaInUse`.
    """
    wanted = select(Media.id, Media.post_id, Media.is_avatar).where(Media.owner_id == owner_id, Media.id.in_(ids))
    found = db.execute(wanted.order_by(Media.id).with_for_update(key_share=True)).all()
    if {row.id for row in found} != {*ids}:
        raise MediaNotFound
    if any(row.post_id not in {None, post_id} or (row.is_avatar and not is_for_profile) for row in found):
        raise MediaInUse


def as_json(db: Session, ids: Sequence[int]) -> str:
    """Return the value of `posts.media` for these pictures, in this order."""
    return str(db.scalar(_AS_JSON, {"ids": ids}))


def attach(db: Session, post_id: int, ids: Sequence[int]) -> None:
    """Let the post, whose `media` has these pictures already, use them and no others. They must be locked."""
    db.execute(_ATTACH, {"post_id": post_id, "ids": ids})
