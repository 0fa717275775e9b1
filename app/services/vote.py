"""Voting for posts and comments: many ballots in one statement and one commit.

Rows are locked in the order of `app.database.locks`: users, posts or comments, and their counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Boolean, Connection, Integer, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session as DatabaseSession

from app.database.prepared import PreparedStatement
from app.errors import AlreadyVoted, CommentNotFound, NotAuthenticated, VotedPostNotFound, VoteNotFound
from app.models import Session, User
from app.models.base import possible_key
from app.schemas.vote import VoteCounted
from app.security.access_tokens import AccessToken


@dataclass(frozen=True, slots=True)
class Ballot:
    """A request to set or remove one user's vote for a post, or for a comment."""

    token: AccessToken
    item_id: int
    is_for: bool

    @property
    def pair(self) -> tuple[int, int]:
        """The user and the post or comment, for which at most one vote exists."""
        return self.token.user_id, self.item_id


@dataclass(frozen=True, slots=True)
class Cast:
    """Whether the ballot changed anything, and the resulting vote count of the post or comment."""

    changed: bool
    votes: int


# Rows are locked in the order of `database.locks`. `count(*)` makes PostgreSQL finish one step before the next.
# - users: the lock makes the deletion of an account and its concurrent votes wait for each other.
# - posts or comments: the same for them. Drafts, tombstones, and what belongs to deleted accounts count as missing.
# - their counts: until the transaction ends, no other transaction changes them. Triggers run at the end of the
#   statement, so it cannot see the new count. It computes it: the locked count plus its own changes.
_CAST = """
    WITH ballot AS MATERIALIZED (
        SELECT * FROM unnest(:numbers, :session_ids, :user_ids, :item_ids, :is_for)
            AS ballot (number, session_id, user_id, item_id, is_for)
    ), voter AS MATERIALIZED (
        SELECT sessions.id AS session_id, users.id AS user_id
        FROM sessions JOIN users ON users.id = sessions.user_id
        WHERE sessions.id = ANY (:session_ids) AND sessions.expires_at > now() AND users.is_active
            AND NOT (sessions.id <> users.kept_session_id AND sessions.id <= CASE sessions.kind
                WHEN 'login' THEN users.last_ended_login_id ELSE users.last_ended_api_key_id END)
        ORDER BY users.id FOR KEY SHARE OF users
    ), item AS MATERIALIZED (
        SELECT id FROM {items}
        WHERE id = ANY (:item_ids) AND {is_votable} AND (SELECT count(*) FROM voter) > 0
            AND (SELECT NOT is_deleted FROM users WHERE users.id = owner_id)
        ORDER BY id FOR KEY SHARE
    ), counted AS MATERIALIZED (
        SELECT {key} AS item_id, votes FROM {counts}
        WHERE {key} = ANY (:item_ids) AND (SELECT count(*) FROM item) > 0
        ORDER BY {key} FOR NO KEY UPDATE
    ), votable AS MATERIALIZED (
        SELECT ballot.number, ballot.user_id, ballot.is_for, counted.item_id, counted.votes
        FROM ballot
        JOIN voter ON voter.session_id = ballot.session_id AND voter.user_id = ballot.user_id
        JOIN item ON item.id = ballot.item_id
        JOIN counted ON counted.item_id = ballot.item_id
    ), added AS (
        INSERT INTO {votes} ({key}, user_id)
        SELECT item_id, user_id FROM votable WHERE is_for ORDER BY item_id, user_id
        ON CONFLICT ({key}, user_id) DO NOTHING RETURNING {key} AS item_id, user_id
    ), removed AS (
        DELETE FROM {votes} USING votable
        WHERE {votes}.{key} = votable.item_id AND {votes}.user_id = votable.user_id AND NOT votable.is_for
        RETURNING {votes}.{key} AS item_id, {votes}.user_id
    ), change AS (
        SELECT item_id, user_id, 1 AS n FROM added UNION ALL SELECT item_id, user_id, -1 FROM removed
    )
    SELECT ballot.number,
        voter.user_id IS NOT NULL AS is_valid,
        votable.votes + coalesce(sum(change.n) OVER (PARTITION BY ballot.item_id), 0) AS votes,
        change.n IS NOT NULL AS has_changed
    FROM ballot
    LEFT JOIN voter ON voter.session_id = ballot.session_id AND voter.user_id = ballot.user_id
    LEFT JOIN votable ON votable.number = ballot.number
    LEFT JOIN change ON change.item_id = ballot.item_id AND change.user_id = ballot.user_id
    ORDER BY ballot.number
"""


def _cast_statement(*, items: str, key: str, counts: str, votes: str, is_votable: str) -> PreparedStatement:
    statement = _CAST.format(items=items, key=key, counts=counts, votes=votes, is_votable=is_votable)
    return PreparedStatement(
        text(statement).bindparams(
            bindparam("numbers", type_=ARRAY(Integer)),
            bindparam("session_ids", type_=ARRAY(BIGINT)),
            bindparam("user_ids", type_=ARRAY(BIGINT)),
            bindparam("item_ids", type_=ARRAY(BIGINT)),
            bindparam("is_for", type_=ARRAY(Boolean)),
        )
    )


_CAST_FOR_POSTS = _cast_statement(
    items="posts", key="post_id", counts="post_stats", votes="votes", is_votable="published"
)
_CAST_FOR_COMMENTS = _cast_statement(
    items="comments",
    key="comment_id",
    counts="comment_stats",
    votes="comment_votes",
    # Tombstones have no owner.
    is_votable="""removal_reason IS NULL AND (
        SELECT posts.published AND NOT users.is_deleted FROM posts JOIN users ON users.id = posts.owner_id
        WHERE posts.id = comments.post_id
    )""",
)


def cast(connection: Connection, ballots: Sequence[Ballot]) -> list[Cast | Exception]:
    """Cast the ballots for posts in one statement. No two may have the same user and post.

    In AUTOCOMMIT, the votes are committed when this returns. Otherwise they are part of the caller's transaction.
    Return one outcome per ballot, in order: its `Cast`, `NotAuthenticated`, or `VotedPostNotFound` (also for drafts).
    The counts include every ballot, and no later vote.
    """
    return _cast(connection, _CAST_FOR_POSTS, ballots, VotedPostNotFound)


def cast_for_comments(connection: Connection, ballots: Sequence[Ballot]) -> list[Cast | Exception]:
    """Cast the ballots for comments as `cast` does for posts.

    The error is `CommentNotFound` for tombstones, removed comments, and comments on drafts, too.
    """
    return _cast(connection, _CAST_FOR_COMMENTS, ballots, CommentNotFound)


def _cast(
    connection: Connection,
    statement: PreparedStatement,
    ballots: Sequence[Ballot],
    not_found: Callable[[int], Exception],
) -> list[Cast | Exception]:
    rows = statement.execute(
        connection,
        {
            "numbers": list(range(len(ballots))),
            "session_ids": [ballot.token.session_id for ballot in ballots],
            "user_ids": [ballot.token.user_id for ballot in ballots],
            "item_ids": [possible_key(ballot.item_id) for ballot in ballots],
            "is_for": [ballot.is_for for ballot in ballots],
        },
    )
    outcomes: list[Cast | Exception] = []
    for ballot, row in zip(ballots, rows, strict=True):
        if not row.is_valid:
            outcomes.append(NotAuthenticated())
        elif row.votes is None:
            outcomes.append(not_found(ballot.item_id))
        else:
            outcomes.append(Cast(row.has_changed, row.votes))
    return outcomes


def cast_one(db: DatabaseSession, ballot: Ballot) -> VoteCounted:
    """Cast one ballot in the caller's transaction; return the body of `POST /vote`.

    Raises as `counted`, `NotAuthenticated`, or `VotedPostNotFound`.
    """
    (outcome,) = cast(db.connection(), [ballot])
    if isinstance(outcome, Exception):
        raise outcome
    return counted(ballot, outcome)


def authenticate(db: DatabaseSession, ballot: Ballot) -> None:
    """Lock the voter's account.

    Raises `NotAuthenticated` unless their session is valid.
    """
    valid_session = (
        select(Session.id)
        .join(User, Session.is_valid())
        .where(Session.id == ballot.token.session_id, User.id == ballot.token.user_id)
        .with_for_update(read=True, key_share=True, of=User)
    )
    if db.scalar(valid_session) is None:
        raise NotAuthenticated


def counted(ballot: Ballot, cast: Cast) -> VoteCounted:
    """Return the response body of `POST /vote`.

    Raises `AlreadyVoted` or `VoteNotFound` if the ballot changed nothing.
    """
    if not cast.changed:
        raise AlreadyVoted(ballot.token.user_id, ballot.item_id) if ballot.is_for else VoteNotFound
    message: Literal["successfully added vote", "successfully deleted vote"] = (
        "successfully added vote" if ballot.is_for else "successfully deleted vote"
    )
    return VoteCounted(message=message, votes=cast.votes)
