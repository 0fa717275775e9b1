"""API keys: sessions of programs, limited by scopes, without an idle timeout.

A key consists of `spk_`, 32 random characters (190 bits), and 6 characters of CRC-32. The checksum lets scanners of
leaked secrets recognise a key with certainty. It also lets the server refuse a truncated or mistyped key without a
query. Only the SHA-256 of a key is stored.
"""

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, DateTime, cast, delete, func, insert, literal, select
from sqlalchemy.orm import Session

from app import models
from app.config import get_settings
from app.errors import ApiKeyNotFound, NotAuthenticated, QuotaExceeded
from app.models.security_event import Event
from app.schemas.api_key import ApiKeyIn, ApiKeyOut, NewApiKey
from app.schemas.page import KeysetPage
from app.security import audit_log
from app.security.access_tokens import AccessToken

PREFIX = "spk_"
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class Grant:
    """The session of a key, as a token, and the scopes of the key."""

    token: AccessToken
    scopes: frozenset[models.Scope]


def make_key() -> str:
    """Return a new key with 190 random bits."""
    body = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + _checksum(body)


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key.

    Raises `NotAuthenticated` for a wrong format or checksum.
    """
    if not _SHAPE.fullmatch(key) or _checksum(key[:-CHECKSUM_CHARACTERS]) != key[-CHECKSUM_CHARACTERS:]:
        raise NotAuthenticated
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


_GRANTS = (
    select(models.ApiKey.key_hash, models.ApiKey.scopes, models.Session.id, models.Session.user_id,
           models.Session.expires_at)
    .join(models.Session, models.Session.id == models.ApiKey.session_id)
    .join(models.User, models.Session.is_valid())
)  # fmt: skip


def look_up(connection: Connection, digests: Sequence[bytes]) -> list[Grant | Exception]:
    """Return a `Grant` or `NotAuthenticated` for each digest, in order.

    A key is valid as long as its session and its account are.
    """
    found = {
        bytes(row.key_hash): Grant(
            AccessToken(row.user_id, row.id, int(row.expires_at.timestamp())), frozenset(row.scopes)
        )
        for row in connection.execute(_GRANTS.where(models.ApiKey.key_hash.in_(set(digests))))
    }
    return [found.get(one) or NotAuthenticated() for one in digests]


_NEVER = cast("infinity", DateTime(timezone=True))
_SHOWN = (
    select(
        models.Session.id,
        models.ApiKey.name,
        models.ApiKey.scopes,
        models.Session.created_at,
        func.nullif(models.Session.expires_at, _NEVER).label("expires_at"),
        func.nullif(models.Session.last_seen_at, models.Session.created_at).label("last_used_at"),
    )
    .join(models.ApiKey, models.ApiKey.session_id == models.Session.id)
    .join(models.User, models.Session.is_valid())
)


def create(db: Session, caller: models.User, session_id: int, new: ApiKeyIn) -> NewApiKey:
    """Create a key for the caller, who is signed in with this session.

    The lock makes a concurrent change of password wait, and the other way round. That change ends all keys, so no key
    remains that was created with an ended session. Raises `NotAuthenticated`, and `QuotaExceeded` if the caller
    already has `MAX_API_KEYS` that have not expired.
    """
    # The lock also serializes the creation of keys, so that each counts those before.
    db.execute(select(models.User.id).where(models.User.id == caller.id).with_for_update(key_share=True))
    maximum = get_settings().max_api_keys
    valid_keys = _SHOWN.where(models.Session.user_id == caller.id).limit(maximum).subquery()
    if db.scalar(select(func.count()).select_from(valid_keys)) == maximum:
        raise QuotaExceeded(maximum, "API keys")
    expires_at = cast(new.expires_at or "infinity", DateTime(timezone=True))
    # A separate statement after the lock, so that it sees what earlier holders of the lock have committed.
    owner = (
        select(models.User.id, literal("api_key"), expires_at, expires_at)
        .join(models.Session, models.Session.is_valid())
        .where(models.Session.id == session_id, models.User.id == caller.id)
    )
    opened = insert(models.Session).from_select(["user_id", "kind", "expires_at", "ends_at"], owner)
    key_id = db.scalar(opened.returning(models.Session.id))
    if key_id is None:
        raise NotAuthenticated
    key = make_key()
    db.execute(insert(models.ApiKey).values(session_id=key_id, name=new.name, scopes=new.scopes, key_hash=digest(key)))
    audit_log.record(db, Event.API_KEY_CREATED, caller.id, api_key_id=key_id, scopes=" ".join(new.scopes))
    return NewApiKey(**get(db, caller.id, key_id).model_dump(), key=key)


def list_own(db: Session, user_id: int, page: KeysetPage) -> list[ApiKeyOut]:
    """Return the user's unexpired keys by ascending id."""
    own = _SHOWN.where(models.Session.user_id == user_id)
    return [ApiKeyOut.model_validate(row) for row in db.execute(page.select(own, models.Session.id))]


def get(db: Session, user_id: int, key_id: int) -> ApiKeyOut:
    """Return one of the user's keys. Raises `ApiKeyNotFound`."""
    row = db.execute(_SHOWN.where(models.Session.user_id == user_id, models.Session.id == key_id)).one_or_none()
    if row is None:
        raise ApiKeyNotFound
    return ApiKeyOut.model_validate(row)


def remove(db: Session, user_id: int, key_id: int) -> None:
    """Revoke one of the user's keys at once. Raises `ApiKeyNotFound`."""
    audit_log.lock_account(db, user_id)
    is_key = (models.Session.id == key_id, models.Session.user_id == user_id, models.Session.kind == "api_key")
    is_there = (models.Session.user_id == models.User.id, ~models.Session.was_revoked())
    ended = delete(models.Session).where(*is_key, *is_there)
    if db.scalar(ended.returning(models.Session.id)) is None:
        raise ApiKeyNotFound
    audit_log.record(db, Event.API_KEY_DELETED, user_id, api_key_id=key_id)
