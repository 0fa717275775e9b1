"""Upload, describe and delete pictures, and delete the files of those that are gone.

A file is stored before the row of its picture, and deleted after it. A row of `media_removals` stands for it meanwhile,
so that files and rows agree in the end, whenever a process or the machine stops.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database import event_log, picture_use
from app.database.sessions import transaction, writing
from app.errors import MediaNotFound, MediaUnavailable, QuotaExceeded
from app.media.decoding import Picture
from app.media.storage import StorageError, files_of, get_storage
from app.models import EventKind, Media, MediaRemoval, Post
from app.schemas.media import MediaOut, shown
from app.schemas.page import KeysetPage

logger = logging.getLogger("app")

# Files of an upload that did not become a picture are deleted after this time. It must be longer than any upload takes.
MAX_STORE = timedelta(hours=1)
# Few, because a bucket may take its time, and PostgreSQL ends a transaction that is idle for long.
REMOVAL_BATCH = 20
# A batch ends after this time, so that with one request that hangs it takes less than that, 10 s by default.
MAX_REMOVAL_SECONDS = 2.0
# Storage that fails is tried again after this time.
RETRY_REMOVAL_AFTER = timedelta(minutes=1)


def require_room(db: Session, owner_id: int) -> None:
    """Raise `QuotaExceeded` if the account has the maximum number or bytes of pictures."""
    settings = get_settings()
    count, size = db.execute(
        select(func.count(), func.coalesce(func.sum(Media.bytes), 0)).where(Media.owner_id == owner_id)
    ).one()
    if count >= settings.media_max_pictures:
        raise QuotaExceeded(settings.media_max_pictures, "pictures")
    if size >= settings.media_quota_bytes:
        raise QuotaExceeded(settings.media_quota_bytes, "bytes of pictures")


def store(picture: Picture) -> str:
    """Store the files of a picture under a new name, and return it. They are deleted unless `create` follows.

    Raises `MediaUnavailable`.
    """
    name = secrets.token_hex(16)
    with transaction() as db:
        db.execute(insert(MediaRemoval).values(name=name, due_at=func.now() + MAX_STORE))
    try:
        for file_name, file in zip(files_of(name), (picture.file, picture.preview), strict=True):
            get_storage().put(file_name, file)
    except StorageError as error:
        # Not discarded: a bucket may still complete a request that was given up. The files are deleted after MAX_STORE.
        logger.error("picture not stored: reason=%s", error)  # noqa: TRY400 - one line says it.
        raise MediaUnavailable from None
    return name


def discard(name: str) -> None:
    """Let the files be deleted, unless a picture has the name."""
    with transaction() as db:
        db.execute(update(MediaRemoval).where(MediaRemoval.name == name).values(due_at=func.now()))


def create(db: Session, owner_id: int, name: str, picture: Picture, alt: str | None) -> MediaOut:
    """Add the row of a stored picture.

    Raises `QuotaExceeded`, `NotAuthenticated`, and `MediaUnavailable` if storing took so long that the files are gone.
    """
    picture_use.lock_account(db, owner_id)
    require_room(db, owner_id)
    kept = delete(MediaRemoval).where(MediaRemoval.name == name).returning(MediaRemoval.name)
    if db.scalar(kept) is None:
        raise MediaUnavailable
    facts = {"width": picture.width, "height": picture.height, "bytes": picture.bytes, "blurhash": picture.blurhash}
    values = {"owner_id": owner_id, "name": name, "alt": alt or None, **facts}
    return _shown(db.scalars(insert(Media).values(values).returning(Media)).one())


def list_own(db: Session, owner_id: int, page: KeysetPage) -> list[MediaOut]:
    """Return the user's pictures, newest first."""
    own = page.select(select(Media).where(Media.owner_id == owner_id), Media.id, is_descending=True)
    return [_shown(each) for each in db.scalars(own)]


def get(db: Session, owner_id: int, media_id: int) -> MediaOut:
    """Return one of the user's pictures. Raises `MediaNotFound`."""
    found = db.scalar(select(Media).where(Media.id == media_id, Media.owner_id == owner_id))
    if found is None:
        raise MediaNotFound
    return _shown(found)


def describe(db: Session, owner_id: int, media_id: int, alt: str | None) -> MediaOut:
    """Change what one of the user's pictures is said to show. Raises `MediaNotFound`."""
    post_id = _lock(db, owner_id, media_id)
    changed = update(Media).where(Media.id == media_id, Media.owner_id == owner_id).values(alt=alt or None)
    found = db.scalar(changed.returning(Media).execution_options(populate_existing=True))
    if found is None:
        raise MediaNotFound
    _log_edit(db, owner_id, post_id)
    return _shown(found)


def remove(db: Session, owner_id: int, media_id: int) -> None:
    """Delete one of the user's pictures, also from the post or profile that uses it. Raises `MediaNotFound`."""
    post_id = _lock(db, owner_id, media_id)
    removed = delete(Media).where(Media.id == media_id, Media.owner_id == owner_id)
    if db.scalar(removed.returning(Media.id)) is None:
        raise MediaNotFound
    _log_edit(db, owner_id, post_id)


def set_avatar(db: Session, user_id: int, media_id: int | None) -> MediaOut | None:
    """Let the profile use this picture, or none. Raises `MediaNotFound` and `MediaInUse`."""
    picture_use.lock_account(db, user_id)
    if media_id is not None:
        picture_use.lock_own(db, user_id, [media_id], is_for_profile=True)
    former = update(Media).where(Media.owner_id == user_id, Media.is_avatar, Media.id.is_distinct_from(media_id))
    db.execute(former.values(is_avatar=False, unused_since=func.now()))
    if media_id is None:
        return None
    db.execute(update(Media).where(Media.id == media_id).values(is_avatar=True, unused_since=None))
    return get(db, user_id, media_id)


def _lock(db: Session, owner_id: int, media_id: int) -> int | None:
    """Lock the account, then the post that uses the picture, and return its id."""
    picture_use.lock_account(db, owner_id)
    post_id = db.scalar(select(Media.post_id).where(Media.id == media_id, Media.owner_id == owner_id))
    if post_id is not None:
        db.execute(select(Post.id).where(Post.id == post_id).with_for_update(key_share=True))
    return post_id


def _log_edit(db: Session, owner_id: int, post_id: int | None) -> None:
    is_published = select(Post.id).where(Post.id == post_id, Post.published, Post.owner_id == owner_id)
    if post_id is not None and db.scalar(is_published) is not None:
        event_log.record(db, EventKind.POST_EDITED, actor_id=owner_id, post_id=post_id)


def _shown(picture: Media) -> MediaOut:
    stored: Mapping[str, Any] = {key: getattr(picture, key) for key in Media.__table__.columns.keys()}  # noqa: SIM118
    return shown(stored)


def remove_files(is_stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete the files of pictures that are gone, and return the number of pictures.

    Each batch locks its rows until the files are deleted, so that several processes share the work. If the storage
    fails, the row is left for a later call.
    """
    removed = 0
    while not is_stopping():
        due = select(MediaRemoval.name).where(MediaRemoval.due_at <= func.now()).order_by(MediaRemoval.due_at)
        with writing() as connection:
            names = connection.scalars(due.limit(REMOVAL_BATCH).with_for_update(skip_locked=True)).all()
            gone, failed = _delete_files(names)
            connection.execute(delete(MediaRemoval).where(MediaRemoval.name.in_(gone)))
            if failed is not None:
                later = update(MediaRemoval).where(MediaRemoval.name == failed)
                connection.execute(later.values(due_at=func.now() + RETRY_REMOVAL_AFTER))
        removed += len(gone)
        if len(names) < REMOVAL_BATCH or failed is not None:
            break
    return removed


def _delete_files(names: Sequence[str]) -> tuple[list[str], str | None]:
    """Delete the files of these pictures until time is up or one fails. Return whose are gone, and which one failed."""
    gone: list[str] = []
    end = time.monotonic() + MAX_REMOVAL_SECONDS
    for name in names:
        if time.monotonic() > end:
            break
        try:
            for file_name in files_of(name):
                get_storage().delete(file_name)
        except StorageError as error:
            logger.warning("files not deleted, and tried again later: name=%s reason=%s", name, error)
            return gone, name
        gone.append(name)
    return gone, None
