"""Doing a create once, however often it is sent: the answer is kept in the transaction of the effect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import IdempotencyInProgress, IdempotencyMismatch
from app.models import IdempotencyKey

KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client means to happen once: whose key it is (None: the signed-out), and keyed hashes of what it asks.

    The first hash is of the secret that is in use; the others are of those before it, as an answer may have kept them.
    """

    key: str
    fingerprints: Sequence[bytes]
    user_id: int | None = None

    def of(self, user_id: int | None) -> "Request":
        """The same, as this user's."""
        return replace(self, user_id=user_id)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that can be given again."""

    status: int
    body: bytes
    location: str | None = None
    is_replay: bool = False


def run_once(db: Session | Connection, request: Request | None, effect: Callable[[], StoredResponse]) -> StoredResponse:
    """Run `effect` and store its response. For a key that was used, return the stored response, without the effect.

    A failed request stores nothing, so the same key may be sent again. Raises `IdempotencyInProgress` while
    another request with this key runs, `IdempotencyMismatch` if the key was used for another request.
    """
    if request is None:
        return effect()
    # Held until the transaction ends. The next holder sees what this transaction committed.
    lock = func.hashtextextended(f"{request.user_id}:{request.key}", 0)
    if not db.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyInProgress
    kept = db.execute(
        select(IdempotencyKey.fingerprint, IdempotencyKey.status, IdempotencyKey.body, IdempotencyKey.location).where(
            IdempotencyKey.user_id.is_not_distinct_from(request.user_id),
            IdempotencyKey.key == request.key,
            IdempotencyKey.expires_at > func.now(),
        )
    ).one_or_none()
    if kept is not None:
        if kept.fingerprint not in request.fingerprints:
            raise IdempotencyMismatch
        return StoredResponse(kept.status, kept.body, kept.location, is_replay=True)
    answer = effect()
    values = {
        "fingerprint": request.fingerprints[0],
        "status": answer.status,
        "body": answer.body,
        "location": answer.location,
        "expires_at": func.now() + KEPT,
    }
    db.execute(
        insert(IdempotencyKey)
        .values(user_id=request.user_id, key=request.key, **values)
        # Only an expired answer can stand there: the lock is ours.
        .on_conflict_do_update(index_elements=["user_id", "key"], set_=values)
    )
    return answer
