"""The export of an account: a ZIP with a JSON file for each kind of rows.

It is made while it is read. Each batch of rows is read in a transaction of its own, by keyset, and its connection is
returned before the batch is sent. So a slow reader holds neither a connection nor a snapshot, and an export takes the
memory of one batch, however large the account is. docs/export.md describes the files, and what a reader can rely on.
"""

import json
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import InstrumentedAttribute

from app.database.notification_visibility import IS_SHOWN
from app.database.sessions import writing
from app.errors import NotAuthenticated
from app.media.storage import files_of, get_storage
from app.models import (
    ApiKey,
    Block,
    Bookmark,
    Comment,
    CommentVote,
    Follow,
    Invite,
    Media,
    Notification,
    Post,
    PostMute,
    Report,
    SecurityEvent,
    Session,
    Tag,
    TagFollow,
    Totp,
    User,
    Vote,
    Webhook,
)

FORMAT = 1
# A batch ends at either. Its first row is read whatever its size.
BATCH_ROWS = 500
BATCH_BYTES = 250_000
BATCH_PICTURES = 100


class Kind(NamedTuple):
    """A file of the export: its rows, the key by which they are read, and the column that makes them large."""

    name: str
    rows: Select[*tuple[Any, ...]]
    owner: InstrumentedAttribute[Any]
    key: Sequence[InstrumentedAttribute[Any]]
    large: InstrumentedAttribute[str] | None = None


_SIGN_INS = select(
    Session.id, Session.created_at, Session.last_seen_at, Session.expires_at, Session.user_agent, Session.address
)
_NEVER = sql_cast("infinity", DateTime(timezone=True))
_PUBLISHED_AT = Post.published_at.label("published_at")
KINDS = (
    Kind(
        "posts",
        select(
            Post.id, Post.title, Post.content, Post.published, Post.created_at, Post.updated_at, _PUBLISHED_AT,
            Post.tags, Post.locked, Post.removal_reason, Post.description,
        ),
        Post.owner_id, (Post.id,), Post.content,
    ),
    Kind(
        "pictures",
        select(
            Media.id, Media.name, Media.width, Media.height, Media.alt, Media.blurhash, Media.post_id, Media.position,
            Media.is_avatar, Media.created_at,
        ),
        Media.owner_id, (Media.id,),
    ),
    Kind(
        "comments",
        select(
            Comment.id, Comment.post_id, Comment.parent_id, Comment.content, Comment.created_at, Comment.updated_at,
            Comment.removal_reason,
        ),
        Comment.owner_id, (Comment.id,), Comment.content,
    ),
    Kind("votes", select(Vote.post_id, Vote.created_at), Vote.user_id, (Vote.created_at, Vote.post_id)),
    Kind("comment_votes", select(CommentVote.comment_id), CommentVote.user_id, (CommentVote.comment_id,)),
    Kind(
        "bookmarks", select(Bookmark.post_id, Bookmark.created_at), Bookmark.user_id,
        (Bookmark.created_at, Bookmark.post_id),
    ),
    Kind("mutes", select(PostMute.post_id, PostMute.created_at), PostMute.user_id, (PostMute.post_id,)),
    Kind(
        "followed_users",
        select(Follow.followee_id.label("user_id"), User.username, Follow.created_at)
        .join(User, (User.id == Follow.followee_id) & ~User.is_deleted),
        Follow.follower_id, (Follow.created_at, Follow.followee_id),
    ),
    Kind(
        "followed_tags", select(Tag.name, TagFollow.created_at).join(Tag, Tag.id == TagFollow.tag_id),
        TagFollow.user_id, (TagFollow.tag_id,),
    ),
    Kind(
        "blocked_users",
        select(Block.blocked_id.label("user_id"), User.username, Block.created_at)
        .join(User, (User.id == Block.blocked_id) & ~User.is_deleted),
        Block.blocker_id, (Block.created_at, Block.blocked_id),
    ),
    Kind(
        "notifications",
        select(
            Notification.id, Notification.kind, Notification.actor_id, Notification.post_id, Notification.comment_id,
            Notification.created_at, Notification.read_at,
        ),
        Notification.user_id, (Notification.id,),
    ),
    Kind(
        "reports",
        select(
            Report.id, Report.post_id, Report.comment_id, Report.user_id, Report.reason, Report.created_at,
        ),
        Report.reporter_id, (Report.id,),
    ),
    Kind(
        "sessions", _SIGN_INS.join(User, Session.is_valid()).where(Session.kind == "login"), Session.user_id,
        (Session.id,),
    ),
    Kind(
        "api_keys",
        select(
            Session.id, ApiKey.name, ApiKey.scopes, Session.created_at,
            func.nullif(Session.expires_at, _NEVER).label("expires_at"),
            func.nullif(Session.last_seen_at, Session.created_at).label("last_used_at"),
        )
        .join(Session, Session.id == ApiKey.session_id)
        .join(User, Session.is_valid()),
        Session.user_id, (Session.id,),
    ),
    Kind(
        "invites",
        select(Invite.id, Invite.max_uses, Invite.uses, Invite.created_at, Invite.expires_at),
        Invite.creator_id, (Invite.id,),
    ),
    Kind(
        "webhooks",
        select(Webhook.id, Webhook.url, Webhook.events, Webhook.scope, Webhook.created_at, Webhook.disabled_at),
        Webhook.owner_id, (Webhook.id,),
    ),
    Kind(
        "security_events",
        select(
            SecurityEvent.id, SecurityEvent.event, SecurityEvent.created_at, SecurityEvent.address,
            SecurityEvent.user_agent, SecurityEvent.request_id, SecurityEvent.details,
        ),
        SecurityEvent.user_id, (SecurityEvent.id,),
    ),
)  # fmt: skip

_PROFILE = (
    select(
        User.id, User.email, User.email_verified_at, User.username, User.display_name, User.bio, User.role,
        User.image_url, User.is_active, User.created_at, Totp.confirmed_at.label("two_factor_since"),
    )
    .outerjoin(Totp, Totp.user_id == User.id)
)  # fmt: skip


class _Outbox:
    """The part of the ZIP that has not been sent yet: a file that can only be written to."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class _Array:
    """A JSON array that is written item by item, one a line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._separator = b"[\n"

    def add(self, item: dict[str, Any]) -> None:
        self._file.write(self._separator + _json(item))
        self._separator = b",\n"

    def end(self) -> None:
        self._file.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


def parts(user_id: int, session_id: int) -> Iterator[bytes]:
    """Yield the ZIP of the account in parts, after each batch of rows.

    Before each batch of rows and each picture, the session is checked again. Raises `NotAuthenticated` if it has ended:
    the ZIP is incomplete then, which every reader of ZIPs notices, because its directory comes last.
    """
    outbox = _Outbox()
    # Typeshed asks for a file that can seek. The documentation says that `write` and `flush` are enough.
    with zipfile.ZipFile(cast("IO[bytes]", outbox), "w", zipfile.ZIP_DEFLATED) as archive:
        with writing() as connection:
            _require_session(connection, user_id, session_id)
            (profile,) = connection.execute(_PROFILE.where(User.id == user_id)).mappings()
        about = {"format": FORMAT, "began_at": datetime.now(UTC), "user_id": user_id}
        archive.writestr("export.json", _json(about))
        archive.writestr("profile.json", _json(dict(profile)))
        for kind in KINDS:
            # The size is not known before, and may be above 2 GB.
            with archive.open(f"{kind.name}.json", "w", force_zip64=True) as file:
                array, last_key = _Array(file), None
                while last_key := _write_batch(array, kind, user_id, session_id, last_key):
                    yield outbox.take()
                array.end()
        yield from _media(archive, user_id, session_id, outbox.take)
    yield outbox.take()


def _media(archive: zipfile.ZipFile, user_id: int, session_id: int, take: Callable[[], bytes]) -> Iterator[bytes]:
    """Write the account's pictures, and yield what `take` returns after each chunk. Raises `StorageError`."""
    of_user = select(Media.id, Media.name).where(Media.owner_id == user_id).order_by(Media.id).limit(BATCH_PICTURES)
    is_next: ColumnElement[bool] = true()
    while True:
        with writing() as connection:
            pictures = connection.execute(of_user.where(is_next)).all()
        if not pictures:
            return
        for picture in pictures:
            with writing() as connection:
                _require_session(connection, user_id, session_id)
            file_name, _ = files_of(picture.name)
            # Stored as they are, because pictures are compressed already.
            with archive.open(zipfile.ZipInfo(f"pictures/{file_name}"), "w", force_zip64=True) as file:
                for chunk in get_storage().read(file_name):
                    file.write(chunk)
                    yield take()
        is_next = Media.id > pictures[-1].id


Key = tuple[Any, ...]


def _write_batch(array: _Array, kind: Kind, user_id: int, session_id: int, last_key: Key | None) -> Key | None:
    """Write the rows after the key; return the key of the last one, or None if there are none."""
    with writing() as connection:
        _require_session(connection, user_id, session_id)
        rows = connection.execute(_next(kind, user_id, last_key)).all()
        hidden = _hidden(connection, user_id, [row.id for row in rows]) if kind.name == "notifications" else ()
    names = kind.rows.selected_columns.keys()
    for row in rows:
        item = dict(zip(names, row, strict=False))
        if item.get("id") not in hidden:
            array.add(item)
    return tuple(rows[-1])[len(names) : len(names) + len(kind.key)] if rows else None


def _next(kind: Kind, user_id: int, last_key: tuple[Any, ...] | None) -> Select[*tuple[Any, ...]]:
    """Select the batch after the key: the columns of the file, then those of the key."""
    keys = [column.label(f"key_{place}") for place, column in enumerate(kind.key)]
    # Of a text, the length is known without reading it. Rows of a kind without large text have about 200 bytes.
    size = func.octet_length(kind.large) if kind.large is not None else literal_column("200", Integer)
    rows = kind.rows.add_columns(*keys, size.label("size")).where(kind.owner == user_id)
    if last_key is not None:
        rows = rows.where(tuple_(*kind.key) > tuple_(*last_key))
    found = rows.order_by(*kind.key).limit(BATCH_ROWS).subquery()
    order = [found.c[key.name] for key in keys]
    summed = select(found, func.sum(found.c.size).over(order_by=order).label("total")).subquery()
    return (
        select(summed)
        .where(summed.c.total - summed.c.size < BATCH_BYTES)
        .order_by(*(summed.c[key.name] for key in keys))
    )


_HIDDEN = text(f"SELECT id FROM notifications AS n WHERE id = ANY (:ids) AND NOT ({IS_SHOWN})").bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)


def _hidden(connection: Connection, user_id: int, ids: Sequence[int]) -> Collection[int]:
    """Return the notifications that `GET /notifications` leaves out, because they would reveal blocks."""
    return set(connection.scalars(_HIDDEN, {"ids": list(ids), "user_id": user_id}))


def _require_session(connection: Connection, user_id: int, session_id: int) -> None:
    valid = select(Session.id).join(User, Session.is_valid()).where(Session.id == session_id, User.id == user_id)
    if connection.scalar(valid) is None:
        raise NotAuthenticated


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=_time).encode()


def _time(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is not exported")
    return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
