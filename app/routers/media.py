"""`/media`: upload, describe and delete pictures, serve their files, and set the picture of the profile."""

import asyncio
import hashlib
import hmac
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Annotated, Any, BinaryIO, TypeVar

from fastapi import APIRouter, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.authentication import DetachedScopedUser, ScopedToken, ScopedUser
from app.api.idempotency_key import KeyHeader, respond_once
from app.api.pagination import cut_and_link
from app.api.route import Route
from app.config import get_settings
from app.database import picture_use
from app.database.sessions import ConnectionLimit, SessionDep, transaction
from app.errors import (
    BodyTooLarge,
    IdempotencyInProgress,
    IdempotencyMismatch,
    MalformedCursor,
    MediaInUse,
    MediaNotFound,
    MediaUnavailable,
    NotAuthenticated,
    Overloaded,
    PictureDamaged,
    PictureTooLarge,
    QuotaExceeded,
    RateLimited,
    UnsupportedMedia,
    UploadTimeout,
)
from app.media import decoding
from app.media.decoding import Picture
from app.media.storage import CHUNK_BYTES, FILE_NAME, StorageError, get_storage
from app.middleware.problem_details import headers, responses
from app.schemas.media import CONTENT_TYPE, PATH, AvatarIn, AvatarState, MediaChange, MediaOut
from app.schemas.page import page_of
from app.schemas.types import Alt, Cursor, Id, Limit
from app.security.access_tokens import AccessToken
from app.services import auth, idempotency, media

logger = logging.getLogger("app")

router = APIRouter(tags=["media"], route_class=Route)

FileName = Annotated[str, Path(description="Name of a file, as `url` and `preview_url` of a picture end in.")]
MediaId = Annotated[Id, Path(alias="id")]
# Of a larger upload, the rest is on disk.
SPOOL_BYTES = 65_536
# For the whole body, so that a slow client cannot hold its file for ever.
MAX_UPLOAD_SECONDS = 120
# Uploads whose bodies are arriving, per account and worker. Each may take `MEDIA_MAX_BYTES` of disk.
MAX_UPLOADS_OF_ACCOUNT = 10
IMMUTABLE = "public, max-age=31536000, immutable"
# Even a file that a browser takes for a page could do nothing.
SANDBOX = "default-src 'none'; sandbox; frame-ancestors 'none'"
_BINARY = {"type": "string", "format": "binary"}
_UPLOAD_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A picture in JPEG, PNG, WebP or GIF.",
                    },
                    "alt": {"type": "string", "maxLength": 1500, "description": "What the picture shows."},
                },
            }
        }
    },
}
_alt = TypeAdapter[str](Alt)
Result = TypeVar("Result")
_arriving: Counter[int] = Counter()
_connections = ConnectionLimit("uploads")
# Reads of the storage at a time, per worker. A bucket that does not answer leaves the other threads to other requests.
MAX_READERS = 8
_readers = ConnectionLimit("readers of pictures", slots=MAX_READERS)
# An upload and a read wait twice, and two requests to a bucket take up to 10 s each: less than the 30 s of the proxies.
MAX_WAIT_SECONDS = 3.0
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class _UploadParser(MultiPartParser):
    spool_max_size = SPOOL_BYTES


@router.post(
    "/media",
    status_code=201,
    response_model=MediaOut,
    responses={
        201: headers("Location"),
        **responses(
            NotAuthenticated, QuotaExceeded, IdempotencyInProgress, IdempotencyMismatch, UploadTimeout,
            UnsupportedMedia, PictureTooLarge, PictureDamaged, RateLimited, MediaUnavailable, Overloaded,
        ),
    },
    openapi_extra={"requestBody": _UPLOAD_FORM},
)  # fmt: skip
async def upload_media(
    token: ScopedToken, caller: DetachedScopedUser, request: Request, key: KeyHeader = None
) -> Response:
    """Upload a picture: JPEG, PNG, WebP or GIF, of which the first frame is kept.

    It is stored as WebP, upright and without its metadata, such as the place where it was taken. Use its `id` in
    `media_ids` of a post or as your avatar. A picture that nothing uses is deleted after a day.
    """
    await _in_thread(_connections, lambda: _require_room(caller.id, key))
    upload, alt = await _read_form(request, caller.id)
    with closing(upload.file):
        picture = await decoding.in_decoding_thread(caller.id, lambda: decoding.decode(upload.file))
        with closing(picture):
            return await _in_thread(_connections, lambda: _store(request, token, key, upload.file, picture, alt))


def _require_room(user_id: int, key: str | None) -> None:
    with transaction() as db:
        if key is None or not idempotency.has_response(db, user_id, key):  # A repetition needs no room.
            media.require_room(db, user_id)


async def _in_thread(limit: ConnectionLimit, call: Callable[[], Result]) -> Result:
    """Run the call in a thread, with a slot of the limit. Raises `MediaUnavailable` if no slot is free in time."""
    slot = limit.slot()
    try:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await slot.acquire()
    except TimeoutError:
        raise MediaUnavailable from None
    try:
        return await run_in_threadpool(call)
    finally:
        slot.release()


async def _read_form(request: Request, user_id: int) -> tuple[UploadFile, str]:
    """Return the file, which is on disk unless it is small, and the text. Raises what the route documents."""
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise _invalid("file", "Send multipart/form-data with a file")
    # Starlette decodes texts in any encoding of Python. Some of those take seconds for a megabyte.
    if parameters.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8"}:
        raise _invalid("file", "Send the form in UTF-8")
    if _arriving[user_id] >= MAX_UPLOADS_OF_ACCOUNT:
        raise RateLimited(1)
    _arriving[user_id] += 1
    try:
        async with asyncio.timeout(MAX_UPLOAD_SECONDS):
            form = await _UploadParser(request.headers, request.stream(), max_files=1, max_fields=1).parse()
    except TimeoutError:
        raise UploadTimeout from None
    except ClientDisconnect:
        raise _invalid("file", "The upload was cut off") from None  # Which no client reads.
    except MultiPartException as error:
        raise _invalid("file", error.message) from None
    except OSError:  # The disk is full.
        raise MediaUnavailable from None
    finally:
        _arriving[user_id] -= 1
        if not _arriving[user_id]:
            del _arriving[user_id]
    try:
        return _checked(form)
    except BaseException:
        await form.close()
        raise


def _checked(form: FormData) -> tuple[UploadFile, str]:
    upload, max_bytes = form.get("file"), get_settings().media_max_bytes
    if not isinstance(upload, UploadFile):
        raise _invalid("file", "Send a file")
    if (upload.size or 0) > max_bytes:
        raise BodyTooLarge(f"The file is larger than {max_bytes} bytes")
    try:
        return upload, _alt.validate_python(form.get("alt", ""))
    except ValidationError as error:
        raise _invalid("alt", error.errors()[0]["msg"]) from None


def _invalid(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "form_invalid", "loc": ("body", field), "msg": message}])


def _store(
    request: Request, token: AccessToken, key: str | None, upload: BinaryIO, picture: Picture, alt: str
) -> Response:
    once = None if key is None else _fingerprinted(key, upload, alt)
    name = media.store(picture)
    is_created = False

    def create(db: Any) -> tuple[MediaOut, str]:
        nonlocal is_created
        created = media.create(db, token.user_id, name, picture, alt)
        is_created = True
        return created, f"/media/{created.id}"

    try:
        with transaction() as db:
            # The session may have ended while the body arrived. The lock makes a ban wait, and the other way round.
            picture_use.lock_account(db, token.user_id)
            auth.current_user(db, token.user_id, token.session_id)
            response = respond_once(db, once, token.user_id, lambda: create(db), http_request=request)
    except BaseException:
        media.discard(name)
        raise
    if not is_created:  # A replay.
        media.discard(name)
    return response


def _fingerprinted(key: str, upload: BinaryIO, alt: str) -> idempotency.Request:
    """Return the idempotency key with fingerprints of the file and the text.

    The boundary of a form differs each time, so its bytes are not compared.
    """
    upload.seek(0)
    digest = hashlib.sha256(f"idempotency:upload_media:{len(alt)}:{alt}".encode())
    while chunk := upload.read(CHUNK_BYTES):
        digest.update(chunk)
    secrets = get_settings().accepted_secrets
    return idempotency.Request(
        key, [hmac.digest(secret.encode(), digest.digest(), hashlib.sha256) for secret in secrets]
    )


@router.get("/media", response_model=list[MediaOut], responses=responses(NotAuthenticated, MalformedCursor))
def list_media(
    caller: ScopedUser,
    db: SessionDep,
    response: Response,
    limit: Annotated[Limit, Query()] = 10,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> list[MediaOut]:
    """List your pictures, newest first. Those that nothing uses are listed, too."""
    page = page_of("media", limit=limit, cursor=cursor)
    return cut_and_link(response, page, media.list_own(db, caller.id, page))


@router.get("/media/{id}", response_model=MediaOut, responses=responses(NotAuthenticated, MediaNotFound))
def get_media(media_id: MediaId, caller: ScopedUser, db: SessionDep) -> MediaOut:
    """Get one of your pictures. Others see them on posts and profiles."""
    return media.get(db, caller.id, media_id)


@router.patch("/media/{id}", response_model=MediaOut, responses=responses(NotAuthenticated, MediaNotFound))
def change_media(media_id: MediaId, wanted: MediaChange, caller: ScopedUser, db: SessionDep) -> MediaOut:
    """Change what one of your pictures is said to show. The post that shows it changes with it."""
    return media.describe(db, caller.id, media_id, wanted.alt)


@router.delete("/media/{id}", status_code=204, responses=responses(NotAuthenticated, MediaNotFound))
def delete_media(media_id: MediaId, caller: ScopedUser, db: SessionDep) -> None:
    """Delete one of your pictures. The post or profile that shows it shows it no more."""
    media.remove(db, caller.id, media_id)


@router.put(
    "/users/me/avatar", response_model=AvatarState, responses=responses(NotAuthenticated, MediaNotFound, MediaInUse)
)
def set_avatar(wanted: AvatarIn, caller: ScopedUser, db: SessionDep) -> AvatarState:
    """Show one of your pictures on your profile. Idempotent."""
    return AvatarState(avatar=media.set_avatar(db, caller.id, wanted.media_id))


@router.delete("/users/me/avatar", response_model=AvatarState, responses=responses(NotAuthenticated))
def remove_avatar(caller: ScopedUser, db: SessionDep) -> AvatarState:
    """Remove the picture from your profile. Idempotent."""
    return AvatarState(avatar=media.set_avatar(db, caller.id, None))


@router.get(
    PATH + "{file_name}",
    response_class=Response,
    responses={
        200: {"description": "The picture", "content": {CONTENT_TYPE: {"schema": _BINARY}}},
        206: {"description": "A part of the picture"},
        304: {"description": "Not modified"},
        **responses(MediaNotFound, MediaUnavailable),
    },
)  # fmt: skip
async def get_media_file(file_name: FileName, request: Request) -> Response:
    """Get the file of a picture. Needs no account, because its address cannot be guessed. It never changes."""
    if not FILE_NAME.fullmatch(file_name):
        raise MediaNotFound
    etag = f'"{file_name.removesuffix(".webp")}"'
    fixed = {
        "ETag": etag, "Cache-Control": IMMUTABLE, "Accept-Ranges": "bytes", "Content-Security-Policy": SANDBOX,
        "Cross-Origin-Resource-Policy": "cross-origin",
    }  # fmt: skip
    try:
        size = await _in_thread(_readers, lambda: get_storage().size(file_name))
        if size is None:
            raise MediaNotFound
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=fixed)
        first, end = 0, size
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if asked is not None and any(asked.groups()) and request.headers.get("if-range", etag) == etag:
            part = _part(asked[1], asked[2], size)
            if part[0] < part[1]:  # Else the whole file, as for several parts (RFC 9110, 14.2).
                first, end = part
                fixed["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        chunks = get_storage().read(file_name, first, end - first)
        beginning = await _in_thread(_readers, lambda: next(chunks, None))
    except StorageError as error:
        logger.warning("picture not served: reason=%s", error)
        raise MediaUnavailable from None
    if beginning is None:  # Deleted since.
        raise MediaNotFound
    return _File(
        _continued(beginning, chunks, end - first),
        status_code=206 if "Content-Range" in fixed else 200,
        headers={**fixed, "Content-Length": str(end - first)},
        media_type=CONTENT_TYPE,
    )


class _File(StreamingResponse):
    """A file whose first chunk was read. If the storage fails later, the server ends the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (StorageError, MediaUnavailable) as error:
            logger.warning("picture served in part: reason=%s", error)


async def _continued(beginning: bytes, chunks: Iterator[bytes], length: int) -> AsyncIterator[bytes]:
    chunk: bytes | None = beginning
    while chunk is not None:
        yield chunk
        length -= len(chunk)
        chunk = await _in_thread(_readers, lambda: next(chunks, None))
    if length:
        raise StorageError("the file was deleted")


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    """Return where the part begins and ends. Without `first`, `last` is the number of bytes at the end."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
