"""Idempotency keys: repeated requests have one effect and get one response.

The response is stored in the transaction of the effect.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import IdempotencyInProgress, IdempotencyMismatch
from app.models import IdempotencyKey

KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Request:
    """An idempotency key, its user (None: signed out), and request fingerprints.

    A fingerprint is a keyed hash. The first one is made with the current secret, the others with earlier secrets:
    a stored response may still have one of these.
    """

    key: str
    fingerprints: Sequence[bytes]
    user_id: int | None = None

    def of(self, user_id: int | None) -> "Request":
        """Return a copy for this user."""
        return replace(self, user_id=user_id)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that can be replayed."""

    status: int
    body: bytes
    location: str | None = None
    is_replay: bool = False


def run_once(db: Session | Connection, request: Request | None, effect: Callable[[], StoredResponse]) -> StoredResponse:
    """Run the effect and store its response, or replay the key's stored response.

    A failed effect stores nothing, so the client can retry with the same key. Raises `IdempotencyInProgress` while
    another request with this key runs, and `IdempotencyMismatch` if the key was used for a different request.
    """
    if request is None:
        return effect()
    # Held until the transaction ends, so that the next holder of the lock sees what this transaction committed.
    lock = func.hashtextextended(f"{request.user_id}:{request.key}", 0)
    if not db.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyInProgress
    columns = IdempotencyKey.fingerprint, IdempotencyKey.status, IdempotencyKey.body, IdempotencyKey.location
    stored = db.execute(select(*columns).where(_is_stored(request.user_id, request.key))).one_or_none()
    if stored is not None:
        if stored.fingerprint not in request.fingerprints:
            raise IdempotencyMismatch
        return StoredResponse(stored.status, stored.body, stored.location, is_replay=True)
    response = effect()
    values = {
        "fingerprint": request.fingerprints[0],
        "status": response.status,
        "body": response.body,
        "location": response.location,
        "expires_at": func.now() + KEPT,
    }
    db.execute(
        insert(IdempotencyKey)
        .values(user_id=request.user_id, key=request.key, **values)
        # A conflicting row can only be an expired one, because this transaction holds the lock.
        .on_conflict_do_update(index_elements=["user_id", "key"], set_=values)
    )
    return response


def has_response(db: Session, user_id: int, key: str) -> bool:
    """Return whether a response of the user's key is stored, so that a request with it does not run again."""
    return db.scalar(select(IdempotencyKey.id).where(_is_stored(user_id, key))) is not None


def _is_stored(user_id: int | None, key: str) -> ColumnElement[bool]:
    return and_(
        IdempotencyKey.user_id.is_not_distinct_from(user_id),
        IdempotencyKey.key == key,
        IdempotencyKey.expires_at > func.now(),
    )
