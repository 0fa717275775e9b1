"""Batched removal of accounts, posts and sessions marked as deleted.

`app.database.deletion_marks` marks them. Each batch is one transaction and locks in the order of
`app.database.locks`. Its size depends on the duration of the batch before it. A pause as long as that batch precedes
it, so that voters wait for at most one batch. `DELETION_LOCK` covers both: however many processes work, there is one
batch at a time and a pause between any two. It is a lock of the transaction: if a process dies, PostgreSQL releases it
and rolls back the batch, and another process continues. All progress is in the database.

An adopted database may have tables whose foreign keys forbid a deletion. Then the marked rows stay deleted for every
request, and the removal is retried every hour. The log and `python -m app doctor` name the foreign key.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, any_, bindparam, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from app.config import get_settings
from app.database import comment_removal, event_log, notification_delivery
from app.database.locks import DELETION_LOCK, lock_user_counts
from app.database.references import broken_reference
from app.database.sessions import writing
from app.models import (
    Block,
    Bookmark,
    Comment,
    CommentStats,
    CommentVote,
    Deletion,
    Follow,
    IdempotencyKey,
    Post,
    PostMute,
    PostStats,
    Report,
    SecurityEvent,
    Session,
    TagFollow,
    User,
    Vote,
)

logger = logging.getLogger("app")

# Voters wait for the counts that a batch of one account's votes locks. Rows of the other batches are hidden from
# requests, so no request waits for them. The smallest batch takes 15 to 30 ms. Smaller ones would never finish on a
# busy machine, where round trips alone take longer than `BATCH_SECONDS`: a minimum of 10 rows removed 40 votes a
# second.
MIN_BATCH_VOTES, MIN_BATCH_ROWS, MAX_BATCH_ROWS = 250, 2_000, 5_000
BATCH_SECONDS = 0.03
# Time before the next account gets its turn, so that small accounts do not wait for large ones.
TURN_SECONDS = 1.0
# Cost of deleting a post or a comment, in deleted votes.
POST_ROWS, COMMENT_ROWS = 10, 10
MAX_ACCOUNTS = 1_000
RETRY_BLOCKED_AFTER = timedelta(hours=1)
_IS_DUE = or_(Deletion.blocked_at.is_(None), Deletion.blocked_at < func.now() - RETRY_BLOCKED_AFTER)


@dataclass(slots=True)
class _Progress:
    """Progress with an account: step, size of the next batch, last removed key.

    Removed rows stay in the indexes for a while. Continuing after the last key avoids reading them again.
    """

    is_deleted: bool | None = None
    step: int = 0
    rows: int = MIN_BATCH_ROWS
    min_rows: int = MIN_BATCH_ROWS
    last_key: Any = None
    # Of comments, which may be removed in the step of posts, too: the post and the comment, the comment and the voter.
    last_comment: tuple[int | None, int | None] = (None, None)
    last_comment_vote: tuple[int | None, int | None] = (None, None)

    def begin(self, step: int, min_rows: int) -> None:
        self.step, self.rows, self.min_rows, self.last_key = step, min_rows, min_rows, None
        self.last_comment = self.last_comment_vote = (None, None)

    def adapt(self, seconds: float) -> None:
        wanted = min(2 * self.rows, int(self.rows * BATCH_SECONDS / max(seconds, 0.001)))
        self.rows = max(self.min_rows, min(wanted, MAX_BATCH_ROWS))


# Removes rows of the account and returns their number.
Remove = Callable[[Connection, int, _Progress], int]


class _Step(NamedTuple):
    remove: Remove
    min_rows: int = MIN_BATCH_ROWS


def is_requested() -> bool:
    """Return whether any removal is due."""
    with writing() as connection:
        return bool(connection.scalar(select(exists(select(Deletion.user_id).where(_IS_DUE)))))


def work(is_stopping: Callable[[], bool] = lambda: False, *, waits_for_turn: bool = True) -> int:
    """Remove marked rows, round-robin by account; return how many accounts finished.

    When `is_stopping` returns true, the rest is left for the next call in any process. It is also left, unless
    `waits_for_turn`, when another process holds `DELETION_LOCK`.
    """
    # A longer pause could exceed `idle_in_transaction_session_timeout`, which is as long as the statement's.
    max_pause = get_settings().database_statement_timeout_seconds / 2
    pause = BATCH_SECONDS
    progress: dict[int, _Progress] = {}
    finished_count = 0
    while user_ids := _requested():
        for user_id in user_ids:
            account_progress = progress.setdefault(user_id, _Progress())
            turn_ends_at = time.monotonic() + TURN_SECONDS
            while time.monotonic() < turn_ends_at:
                if is_stopping():
                    return finished_count
                try:
                    with writing() as connection:
                        if not _take_turn(connection, waits=waits_for_turn):
                            return finished_count
                        time.sleep(pause)
                        began_at = time.monotonic()
                        is_finished = _remove_batch(connection, user_id, account_progress)
                except IntegrityError as error:
                    if (reference := broken_reference(error)) is None:
                        raise
                    _postpone(user_id, reference)
                    del progress[user_id]
                    break
                seconds = time.monotonic() - began_at
                account_progress.adapt(seconds)
                pause = min(seconds, max_pause)
                if is_finished:
                    if account_progress.is_deleted is not None:  # Else another process removed the rows.
                        what = "account" if account_progress.is_deleted else "sessions"
                        logger.info("deletion finished user_id=%d what=%s", user_id, what)
                    del progress[user_id]
                    finished_count += 1
                    break
    return finished_count


def _take_turn(connection: Connection, *, waits: bool) -> bool:
    """Lock `DELETION_LOCK` until the transaction ends.

    Return False if another process holds it.
    """
    if waits:
        connection.execute(select(func.pg_advisory_xact_lock(DELETION_LOCK)))
        return True
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(DELETION_LOCK))))


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
    logger.warning("deletion blocked user_id=%d foreign_key=%s; see python -m app doctor", user_id, reference)


def _remove_batch(connection: Connection, user_id: int, progress: _Progress) -> bool:
    """Remove one batch of the account's rows; return whether none is left.

    The last batch also removes the deletion request.
    """
    # Statements after the lock see what earlier holders of it have marked or removed.
    if connection.scalar(select(Deletion.user_id).where(Deletion.user_id == user_id).with_for_update()) is None:
        progress.is_deleted = None
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
    if is_deleted:  # ON DELETE CASCADE removes the remaining few rows and the request.
        connection.execute(delete(User).where(User.id == user_id))
    else:
        connection.execute(delete(Deletion).where(Deletion.user_id == user_id))
    return True


def _posts(connection: Connection, user_id: int, progress: _Progress) -> int:
    """Remove posts, drafts last and else newest first, or comments, votes, bookmarks or mutes of a post that has many.

    Newest first, because lists of new posts have to skip the rows that are left.
    """
    counted: ColumnElement[int] = func.coalesce(PostStats.votes + COMMENT_ROWS * PostStats.comments, 0)
    for table in (Bookmark, PostMute):
        some = select(table.user_id).where(table.post_id == Post.id).limit(progress.rows + 1).correlate(Post)
        counted += select(func.count()).select_from(some.subquery().lateral()).scalar_subquery()
    found = connection.execute(
        select(Post.id, (counted + POST_ROWS).label("rows"))
        .outerjoin(PostStats, PostStats.post_id == Post.id)
        .where(Post.owner_id == user_id)
        .order_by(Post.published.desc(), Post.created_at.desc(), Post.id.desc())
        .limit(max(1, progress.rows // POST_ROWS))
    ).all()
    if not found:
        return 0
    newest = found[0]
    rows_of_posts = {post.id: post.rows for post in found}
    ids = _first_that_fit(rows_of_posts, progress.rows)
    if newest.rows <= progress.rows:  # Else it would take long, and is not needed.
        for post_id, rows in connection.execute(_ROWS_OF_COMMENTS, {"post_ids": ids}):
            rows_of_posts[post_id] += rows
        ids = _first_that_fit({post_id: rows_of_posts[post_id] for post_id in ids}, progress.rows)
    if rows_of_posts[newest.id] > progress.rows:
        removed = _comments(connection, Comment.post_id == newest.id, progress, post_id=newest.id)
        removed = removed or _votes_of_post(connection, newest.id, progress)
        removed = removed or _private_rows_of_post(Bookmark, connection, newest.id, progress)
        if removed := removed or _private_rows_of_post(PostMute, connection, newest.id, progress):
            return removed
    connection.execute(select(Post.id).where(Post.id == _any(ids)).order_by(Post.id).with_for_update())
    comment_removal.lock_posts(connection, ids)
    event_log.record_deleted_posts(connection, ids)
    connection.execute(delete(Post).where(Post.id == _any(ids)))
    notification_delivery.forget_posts(connection, ids)
    return len(ids)


# Tombstones and votes for comments, which `post_stats` does not count.
_ROWS_OF_COMMENTS = (
    select(CommentStats.post_id, func.sum(CommentStats.votes + COMMENT_ROWS))
    .where(CommentStats.post_id == any_(bindparam("post_ids", type_=ARRAY(BIGINT))))
    .group_by(CommentStats.post_id)
)


def _first_that_fit(rows: Mapping[int, int], most: int) -> list[int]:
    """Return the first ids, at least one, that together cost at most so many rows."""
    ids: list[int] = []
    cost = 0
    for key, its_rows in rows.items():
        cost += its_rows
        if ids and cost > most:
            break
        ids.append(key)
    return ids


def _comments(
    connection: Connection, condition: ColumnElement[bool], progress: _Progress, *, post_id: int | None = None
) -> int:
    """Remove comments, newest first, or votes for one that has many. A reply is newer than its parent."""
    newest = select(Comment.id, (CommentStats.votes + COMMENT_ROWS).label("rows")).where(condition)
    newest = newest.join(CommentStats, CommentStats.comment_id == Comment.id).order_by(Comment.id.desc())
    last_post_id, last_id = progress.last_comment
    if last_id is not None and last_post_id == post_id:
        newest = newest.where(Comment.id < last_id)
    found = connection.execute(newest.limit(max(1, progress.rows // COMMENT_ROWS))).all()
    if not found:
        return 0
    if found[0].rows > progress.rows and (removed := _votes_of_comment(connection, found[0].id, progress)):
        return removed
    ids = _first_that_fit({comment.id: comment.rows for comment in found}, progress.rows)
    comment_removal.remove(connection, ids, comment_removal.lock_paths(connection, ids))
    progress.last_comment = (post_id, ids[-1])
    return len(ids)


def _own_comments(connection: Connection, user_id: int, progress: _Progress) -> int:
    return _comments(connection, Comment.owner_id == user_id, progress)


def _votes_of_comment(connection: Connection, comment_id: int, progress: _Progress) -> int:
    last_comment_id, last_voter_id = progress.last_comment_vote
    votes = select(CommentVote.user_id).where(CommentVote.comment_id == comment_id)
    if last_comment_id == comment_id:
        votes = votes.where(CommentVote.user_id > last_voter_id)
    voter_ids = connection.scalars(votes.order_by(CommentVote.user_id).limit(progress.rows)).all()
    if voter_ids:
        progress.last_comment_vote = (comment_id, voter_ids[-1])
        comment_removal.lock_counts(connection, [], [comment_id])
        connection.execute(
            delete(CommentVote).where(CommentVote.comment_id == comment_id, CommentVote.user_id == _any(voter_ids))
        )
    return len(voter_ids)


def _own_comment_votes(connection: Connection, user_id: int, progress: _Progress) -> int:
    votes = select(CommentVote.comment_id).where(CommentVote.user_id == user_id)
    if progress.last_key:
        votes = votes.where(CommentVote.comment_id > progress.last_key)
    ids = connection.scalars(votes.order_by(CommentVote.comment_id).limit(progress.rows)).all()
    if ids:
        progress.last_key = ids[-1]
        comment_removal.lock_counts(connection, [], ids)
        connection.execute(
            delete(CommentVote).where(CommentVote.user_id == user_id, CommentVote.comment_id == _any(ids))
        )
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


def _private_rows_of_post(
    table: type[Bookmark | PostMute], connection: Connection, post_id: int, progress: _Progress
) -> int:
    user_ids = connection.scalars(select(table.user_id).where(table.post_id == post_id).limit(progress.rows)).all()
    if user_ids:
        _lock_counts(connection, [post_id])
        connection.execute(delete(table).where(table.post_id == post_id, table.user_id == _any(user_ids)))
    return len(user_ids)


def _private_rows(table: type[Bookmark | PostMute]) -> Remove:
    """Return the step that removes bookmarks or mutes.

    The counts of the posts serialize this with the removal of the posts.
    """

    def remove(connection: Connection, user_id: int, progress: _Progress) -> int:
        post_ids = connection.scalars(select(table.post_id).where(table.user_id == user_id).limit(progress.rows)).all()
        _lock_counts(connection, post_ids)
        connection.execute(delete(table).where(table.user_id == user_id, table.post_id == _any(post_ids)))
        return len(post_ids)

    return remove


def _follows(own: InstrumentedAttribute[int], other: InstrumentedAttribute[int]) -> Remove:
    """Return the step that removes follows of the account, in one direction. Triggers correct the other's counts."""

    def remove(connection: Connection, user_id: int, progress: _Progress) -> int:
        others = connection.scalars(select(other).where(own == user_id).limit(progress.rows)).all()
        lock_user_counts(connection, [user_id, *others])
        connection.execute(delete(Follow).where(own == user_id, other == _any(others)))
        return len(others)

    return remove


def _blocks(connection: Connection, user_id: int, progress: _Progress) -> int:
    own = select(Block.blocker_id, Block.blocked_id).where(Block.blocker_id == user_id)
    of_others = select(Block.blocker_id, Block.blocked_id).where(Block.blocked_id == user_id)
    found = connection.execute(own.union_all(of_others).limit(progress.rows)).all()
    pairs = tuple_(Block.blocker_id, Block.blocked_id).in_([tuple(pair) for pair in found])
    locked = select(Block.blocker_id).where(pairs).order_by(Block.blocker_id, Block.blocked_id).with_for_update()
    connection.execute(locked)
    connection.execute(delete(Block).where(pairs))
    return len(found)


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
    """Lock the counts, before votes are changed (`app.database.locks`)."""
    counts = select(PostStats.post_id).where(PostStats.post_id == _any(post_ids)).order_by(PostStats.post_id)
    connection.execute(counts.with_for_update(key_share=True))


def _ended_sessions(connection: Connection, user_id: int, progress: _Progress) -> int:
    ended = select(Session.id).join(User, User.id == Session.user_id).where(User.id == user_id, Session.was_revoked())
    ids = connection.scalars(ended.limit(progress.rows)).all()
    connection.execute(delete(Session).where(Session.id == _any(ids)))
    return len(ids)


def _notifications(connection: Connection, user_id: int, progress: _Progress) -> int:
    return notification_delivery.forget_some(connection, user_id, progress.rows)


def _rows_of(table: type[Session | SecurityEvent | IdempotencyKey]) -> Remove:
    def remove(connection: Connection, user_id: int, progress: _Progress) -> int:
        ids = connection.scalars(select(table.id).where(table.user_id == user_id).limit(progress.rows)).all()
        connection.execute(delete(table).where(table.id == _any(ids)))
        return len(ids)

    return remove


def _tag_follows(connection: Connection, user_id: int, progress: _Progress) -> int:
    follows = select(TagFollow.tag_id).where(TagFollow.user_id == user_id)
    ids = connection.scalars(follows.order_by(TagFollow.tag_id).limit(progress.rows)).all()
    connection.execute(delete(TagFollow).where(TagFollow.user_id == user_id, TagFollow.tag_id == _any(ids)))
    return len(ids)


def _reports(connection: Connection, user_id: int, progress: _Progress) -> int:
    ids = connection.scalars(select(Report.id).where(Report.reporter_id == user_id).limit(progress.rows)).all()
    connection.execute(delete(Report).where(Report.id == _any(ids)))
    return len(ids)


def _any(ids: Sequence[int]) -> Any:
    """Return `ANY` with one array parameter, so that all batches share one statement."""
    return any_(bindparam(None, list(ids), type_=ARRAY(BIGINT)))


_OF_ACCOUNTS = (_Step(_ended_sessions),)
_OF_DELETED_ACCOUNTS = (
    _Step(_posts),
    _Step(_own_votes, MIN_BATCH_VOTES),
    _Step(_own_comments, MIN_BATCH_VOTES),
    _Step(_own_comment_votes, MIN_BATCH_VOTES),
    _Step(_follows(Follow.follower_id, Follow.followee_id), MIN_BATCH_VOTES),
    _Step(_follows(Follow.followee_id, Follow.follower_id), MIN_BATCH_VOTES),
    _Step(_private_rows(Bookmark), MIN_BATCH_VOTES),
    _Step(_private_rows(PostMute), MIN_BATCH_VOTES),
    # After the posts and comments, because their locks make this wait for notifications of replies under way.
    _Step(_notifications),
    _Step(_blocks),
    _Step(_tag_follows),
    _Step(_reports),
    _Step(_rows_of(Session)),
    _Step(_rows_of(SecurityEvent)),
    _Step(_rows_of(IdempotencyKey)),
)
