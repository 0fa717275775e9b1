"""Removal, in batches, of accounts, posts and sessions that `app.database.deletion_marks` has marked.

Each batch is a transaction of its own, and locks what voters lock in their order (posts, counts; each ascending). Its
size follows from how long the last one took, and a pause as long as the batch comes after it: so voters wait for one
batch at most. Two processes do not work at one account at the same time. Nothing is remembered but in the database: a
process that dies leaves its last batch undone, and the next one goes on.

An adopted database may have tables whose foreign keys forbid a deletion. What is marked stays deleted for every
request, the log and `python -m app doctor` name the key, and the rows are tried again every hour.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, any_, bindparam, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.exc import IntegrityError

from app.database.sessions import writing
from app.models import Deletion, IdempotencyKey, Post, PostStats, SecurityEvent, Session, User, Vote
from app.models.references import broken_reference

logger = logging.getLogger("app")

# Voters wait for the counts that a batch of votes by one account holds. What other batches hold is hidden, so that no
# request waits for it. The least takes 15 to 30 ms. Smaller batches would never end on a busy machine, where round
# trips alone take longer than a batch should: with at least 10 rows, 40 votes went in a second.
MIN_BATCH_VOTES, MIN_BATCH_ROWS, MAX_BATCH_ROWS = 250, 2_000, 5_000
BATCH_SECONDS = 0.03
# After so long, the next account has its turn: a small one does not wait for a large one.
TURN_SECONDS = 1.0
# Deleting a post costs about as much as deleting so many votes.
POST_ROWS = 10
MAX_ACCOUNTS = 1_000
RETRY_BLOCKED_AFTER = timedelta(hours=1)
_IS_DUE = or_(Deletion.blocked_at.is_(None), Deletion.blocked_at < func.now() - RETRY_BLOCKED_AFTER)


@dataclass(slots=True)
class _Progress:
    """How far this process is with an account: the step, rows of the next batch, and the key of the last row removed.

    Rows that were just removed are still in indexes: going on after the last key avoids reading all of them again.
    """

    is_deleted: bool | None = None
    step: int = 0
    rows: int = MIN_BATCH_ROWS
    min_rows: int = MIN_BATCH_ROWS
    last_key: Any = None

    def begin(self, step: int, min_rows: int) -> None:
        self.step, self.rows, self.min_rows, self.last_key = step, min_rows, min_rows, None

    def adapt(self, seconds: float) -> None:
        wanted = min(2 * self.rows, int(self.rows * BATCH_SECONDS / max(seconds, 0.001)))
        self.rows = max(self.min_rows, min(wanted, MAX_BATCH_ROWS))


# Removes rows of the account; returns how many.
Remove = Callable[[Connection, int, _Progress], int]


class _Step(NamedTuple):
    remove: Remove
    min_rows: int = MIN_BATCH_ROWS


def is_requested() -> bool:
    """Return whether there is anything to remove now."""
    with writing() as connection:
        return bool(connection.scalar(select(exists(select(Deletion.user_id).where(_IS_DUE)))))


def work(is_stopping: Callable[[], bool] = lambda: False, max_seconds: float = math.inf) -> int:
    """Remove what is marked, account by account in turns; return how many accounts were finished.

    Told to stop, or when the time is over, it leaves the rest to the next call, of whichever process.
    """
    over_at = time.monotonic() + max_seconds
    progress: dict[int, _Progress] = {}
    finished_count = 0
    while user_ids := _requested():
        for user_id in user_ids:
            mine = progress.setdefault(user_id, _Progress())
            turn_ends_at = time.monotonic() + TURN_SECONDS
            while time.monotonic() < turn_ends_at:
                if is_stopping() or time.monotonic() > over_at:
                    return finished_count
                began_at = time.monotonic()
                try:
                    is_finished = _remove_batch(user_id, mine)
                except IntegrityError as error:
                    if (reference := broken_reference(error)) is None:
                        raise
                    _postpone(user_id, reference)
                    del progress[user_id]
                    break
                seconds = time.monotonic() - began_at
                mine.adapt(seconds)
                time.sleep(seconds)
                if is_finished:
                    del progress[user_id]
                    finished_count += 1
                    break
    return finished_count


def _requested() -> Sequence[int]:
    with writing() as connection:
        return connection.scalars(
            select(Deletion.user_id)
            .where(_IS_DUE)
            .order_by(Deletion.requested_at, Deletion.user_id)
            .limit(MAX_ACCOUNTS)
        ).all()


def _postpone(user_id: int, reference: str) -> None:
    with writing() as connection:
        connection.execute(update(Deletion).where(Deletion.user_id == user_id).values(blocked_at=func.now()))
    logger.warning("deletion blocked user_id=%d foreign_key=%s; python -m app doctor says more", user_id, reference)


def _remove_batch(user_id: int, progress: _Progress) -> bool:
    """Remove some of the account's rows; return whether nothing is left. Then the request is removed, too."""
    with writing() as connection:
        # The statements after the lock see all that who held it before has marked or removed.
        if connection.scalar(select(Deletion.user_id).where(Deletion.user_id == user_id).with_for_update()) is None:
            return True
        is_deleted = connection.scalar(select(User.is_deleted).where(User.id == user_id))
        steps = _OF_DELETED_ACCOUNTS if is_deleted else _OF_ACCOUNTS
        if progress.is_deleted != is_deleted:
            progress.is_deleted = is_deleted
            progress.begin(0, steps[0].min_rows)
        for number in range(progress.step, len(steps)):
            if number != progress.step:
                progress.begin(number, steps[number].min_rows)
            if steps[number].remove(connection, user_id, progress):
                return False
        if is_deleted:  # With it go the rows that are few, and the request.
            connection.execute(delete(User).where(User.id == user_id))
        else:
            connection.execute(delete(Deletion).where(Deletion.user_id == user_id))
    logger.info("deletion finished user_id=%d what=%s", user_id, "account" if is_deleted else "sessions")
    return True


def _posts(connection: Connection, user_id: int, progress: _Progress) -> int:
    """Posts with few votes, the newest first, because lists pass by those that are left; or votes of a popular one."""
    found = connection.execute(
        select(Post.id, func.coalesce(PostStats.votes, 0).label("votes"))
        .outerjoin(PostStats, PostStats.post_id == Post.id)
        .where(Post.owner_id == user_id)
        .order_by(Post.created_at.desc(), Post.id.desc())
        .limit(max(1, progress.rows // POST_ROWS))
    ).all()
    if not found:
        return 0
    if found[0].votes > progress.rows and (removed := _votes_of_post(connection, found[0].id, progress)):
        return removed
    ids: list[int] = []
    rows = 0
    for post in found:
        rows += POST_ROWS + post.votes
        if ids and rows > progress.rows:
            break
        ids.append(post.id)
    connection.execute(select(Post.id).where(Post.id == _any(ids)).order_by(Post.id).with_for_update())
    _lock_counts(connection, ids)
    connection.execute(delete(Post).where(Post.id == _any(ids)))
    return len(ids)


def _votes_of_post(connection: Connection, post_id: int, progress: _Progress) -> int:
    last_post_id, last_voter_id = progress.last_key or (None, None)
    votes = select(Vote.user_id).where(Vote.post_id == post_id)
    if last_post_id == post_id:
        votes = votes.where(Vote.user_id > last_voter_id)
    voter_ids = connection.scalars(votes.order_by(Vote.user_id).limit(progress.rows)).all()
    if voter_ids:
        progress.last_key = (post_id, voter_ids[-1])
        _lock_counts(connection, [post_id])
        connection.execute(delete(Vote).where(Vote.post_id == post_id, Vote.user_id == _any(voter_ids)))
    return len(voter_ids)


def _own_votes(connection: Connection, user_id: int, progress: _Progress) -> int:
    votes = select(Vote.created_at, Vote.post_id).where(Vote.user_id == user_id)
    if progress.last_key:
        votes = votes.where(tuple_(Vote.created_at, Vote.post_id) > tuple_(*progress.last_key))
    found = connection.execute(votes.order_by(Vote.created_at, Vote.post_id).limit(progress.rows)).all()
    if found:
        progress.last_key = tuple(found[-1])
        post_ids = [vote.post_id for vote in found]
        _lock_counts(connection, post_ids)
        connection.execute(delete(Vote).where(Vote.user_id == user_id, Vote.post_id == _any(post_ids)))
    return len(found)


def _lock_counts(connection: Connection, post_ids: Sequence[int]) -> None:
    """Before the votes, as everyone who changes votes does."""
    counts = select(PostStats.post_id).where(PostStats.post_id == _any(post_ids)).order_by(PostStats.post_id)
    connection.execute(counts.with_for_update(key_share=True))


def _ended_sessions(connection: Connection, user_id: int, progress: _Progress) -> int:
    ended = select(Session.id).join(User, User.id == Session.user_id).where(User.id == user_id, Session.was_revoked())
    ids = connection.scalars(ended.limit(progress.rows)).all()
    connection.execute(delete(Session).where(Session.id == _any(ids)))
    return len(ids)


def _rows_of(table: type[Session | SecurityEvent | IdempotencyKey]) -> Remove:
    def remove(connection: Connection, user_id: int, progress: _Progress) -> int:
        ids = connection.scalars(select(table.id).where(table.user_id == user_id).limit(progress.rows)).all()
        connection.execute(delete(table).where(table.id == _any(ids)))
        return len(ids)

    return remove


def _any(ids: Sequence[int]) -> Any:
    """One parameter, so that statements of all sizes have one text."""
    return any_(bindparam(None, list(ids), type_=ARRAY(BIGINT)))


_OF_ACCOUNTS = (_Step(_ended_sessions),)
_OF_DELETED_ACCOUNTS = (
    _Step(_posts),
    _Step(_own_votes, MIN_BATCH_VOTES),
    _Step(_rows_of(Session)),
    _Step(_rows_of(SecurityEvent)),
    _Step(_rows_of(IdempotencyKey)),
)
