"""Voting: many ballots in one statement and one commit.

Lock order, for everybody who writes: users, posts, post_stats; each in ascending order of id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Boolean, Connection, Integer, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.errors import AlreadyVoted, NotAuthenticated, VotedPostNotFound, VoteNotFound
from app.models import PostStats, Session, User
from app.models.base import possible_key
from app.schemas.vote import VoteCounted
from app.tokens import AccessToken


@dataclass(frozen=True, slots=True)
class Ballot:
    """Somebody's wish that their vote for a post be there, or not."""

    token: AccessToken
    post_id: int
    is_for: bool

    @property
    def pair(self) -> tuple[int, int]:
        """What at most one vote exists for."""
        return self.token.user_id, self.post_id


@dataclass(frozen=True, slots=True)
class Cast:
    """Whether the ballot changed anything, and how many votes the post has with it."""

    changed: bool
    votes: int


# Whoever deletes an account waits for its votes under way, and its votes for them.
_WHO_VOTES = (
    select(Session.id, User.id)
    .join(User, Session.is_alive())
    .where(Session.id == bindparam("session_ids", type_=ARRAY(BIGINT)).any_())
    .order_by(User.id)
    .with_for_update(key_share=True, read=True, of=User)
)

# The posts' rows are locked before their counts are, in one statement: each step reads the one before.
_CAST = text("""
    WITH ballot AS MATERIALIZED (
        SELECT * FROM unnest(:numbers, :user_ids, :post_ids, :is_for) AS ballot (number, user_id, post_id, is_for)
    ), post AS MATERIALIZED (
        SELECT id FROM posts WHERE id IN (SELECT post_id FROM ballot) AND published ORDER BY id FOR KEY SHARE
    ), counted AS MATERIALIZED (
        SELECT post_id FROM post_stats WHERE post_id IN (SELECT id FROM post) ORDER BY post_id FOR NO KEY UPDATE
    ), votable AS MATERIALIZED (
        SELECT ballot.* FROM ballot JOIN counted USING (post_id)
    ), added AS (
        INSERT INTO votes (post_id, user_id)
        SELECT post_id, user_id FROM votable WHERE is_for ORDER BY post_id, user_id
        ON CONFLICT DO NOTHING RETURNING post_id, user_id
    ), removed AS (
        DELETE FROM votes USING votable
        WHERE votes.post_id = votable.post_id AND votes.user_id = votable.user_id AND NOT votable.is_for
        RETURNING votes.post_id, votes.user_id
    )
    SELECT number, (post_id, user_id) IN (SELECT * FROM added UNION ALL SELECT * FROM removed) AS changed
    FROM votable
""").bindparams(
    bindparam("numbers", type_=ARRAY(Integer)),
    bindparam("user_ids", type_=ARRAY(BIGINT)),
    bindparam("post_ids", type_=ARRAY(BIGINT)),
    bindparam("is_for", type_=ARRAY(Boolean)),
)

# What `_CAST` locks, for ballots that are cast one after the other.
_LOCK = text("""
    WITH post AS MATERIALIZED (
        SELECT id FROM posts WHERE id = ANY (:post_ids) AND published ORDER BY id FOR KEY SHARE
    )
    SELECT FROM post_stats WHERE post_id IN (SELECT id FROM post) ORDER BY post_id FOR NO KEY UPDATE
""").bindparams(bindparam("post_ids", type_=ARRAY(BIGINT)))

_COUNTS = select(PostStats.post_id, PostStats.votes).where(
    PostStats.post_id == bindparam("post_ids", type_=ARRAY(BIGINT)).any_()
)


def lock(connection: Connection, ballots: Sequence[Ballot]) -> None:
    """Lock in order what the ballots touch, for a transaction that will cast them in several statements."""
    connection.execute(_WHO_VOTES, {"session_ids": sorted({ballot.token.session_id for ballot in ballots})})
    connection.execute(_LOCK, {"post_ids": sorted({possible_key(ballot.post_id) for ballot in ballots})})


def cast(connection: Connection, ballots: Sequence[Ballot]) -> list[Cast | Exception]:
    """Cast the ballots, of which no two are of the same user and post, in the caller's transaction.

    An outcome each, in order: what it changed, `NotAuthenticated`, or `VotedPostNotFound` (also for drafts).
    The counts include every ballot of this transaction, and stay true until it ends: their rows are locked.
    """
    alive = {
        (session_id, user_id)
        for session_id, user_id in connection.execute(
            _WHO_VOTES, {"session_ids": sorted({ballot.token.session_id for ballot in ballots})}
        )
    }
    accepted = [
        (number, ballot)
        for number, ballot in enumerate(ballots)
        if (ballot.token.session_id, ballot.token.user_id) in alive
    ]
    outcomes: list[Cast | Exception] = [NotAuthenticated() for _ in ballots]
    if not accepted:
        return outcomes
    changed = {
        row.number: row.changed
        for row in connection.execute(
            _CAST,
            {
                "numbers": [number for number, _ in accepted],
                "user_ids": [ballot.token.user_id for _, ballot in accepted],
                "post_ids": [possible_key(ballot.post_id) for _, ballot in accepted],
                "is_for": [ballot.is_for for _, ballot in accepted],
            },
        )
    }
    voted_posts = sorted({ballots[number].post_id for number in changed})
    votes = {row.post_id: row.votes for row in connection.execute(_COUNTS, {"post_ids": voted_posts})}
    for number, ballot in accepted:
        outcomes[number] = (
            Cast(changed[number], votes[ballot.post_id]) if number in changed else VotedPostNotFound(ballot.post_id)
        )
    return outcomes


def counted(ballot: Ballot, cast: Cast) -> VoteCounted:
    """What `POST /vote` says of it. Raises `AlreadyVoted` or `VoteNotFound` where the ballot changed nothing."""
    if not cast.changed:
        raise AlreadyVoted(ballot.token.user_id, ballot.post_id) if ballot.is_for else VoteNotFound
    message: Literal["successfully added vote", "successfully deleted vote"] = (
        "successfully added vote" if ballot.is_for else "successfully deleted vote"
    )
    return VoteCounted(message=message, votes=cast.votes)
