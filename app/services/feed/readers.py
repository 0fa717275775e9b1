"""Readers of a page: sessions, votes, bookmarks and blocks, read in the statement of the posts.

A batch reads each page once for all its readers. Each row has the readers who voted for the post, bookmarked it, or
blocked its owner. The first row also has the valid sessions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    Subquery,
    UnaryExpression,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.dialects.postgresql.base import PGDialect

from app.config import MODERATING
from app.models import Block, Bookmark, Session, User, Vote
from app.models.base import Key
from app.security.access_tokens import AccessToken
from app.services.feed.rows import PostRow

AnySelect = Select[*tuple[Any, ...]]

_USER_IDS = bindparam("user_ids", type_=ARRAY(BIGINT))
# An API key gives no access to content that only moderators may see.
_ROLE = case((Session.kind == literal_column("'login'"), User.role), else_=literal_column("'user'"))
_IS_VALID = (
    select(
        func.array_agg(Session.id).label("session_ids"),
        func.array_agg(User.id).label("reader_ids"),
        func.array_agg(_ROLE).label("roles"),
    )
    .join(User, Session.is_valid())
    .where(Session.id == bindparam("session_ids", type_=ARRAY(BIGINT)).any_())
    .subquery("valid_session")
)
# The same as text, for statements that are written as text.
VALID_SESSIONS = str(_IS_VALID.element.compile(dialect=PGDialect(paramstyle="named")))
_ASKED = (
    func.unnest(_USER_IDS, bindparam("asked_post_ids", type_=ARRAY(BIGINT)))
    .table_valued("user_id", "post_id", name="asked")
    .render_derived()
)


# Whether any of the readers may see drafts of `owner_id`. It depends on no row, so PostgreSQL evaluates it first, and
# reads no post if it is false.
MAY_SEE_DRAFTS = (
    select(Session.id)
    .join(User, Session.is_valid())
    .where(
        Session.id == bindparam("session_ids", type_=ARRAY(BIGINT)).any_(),
        or_(User.id == bindparam("owner_id", type_=Key), _ROLE.in_(sorted(MODERATING))),
    )
    .correlate(None)
    .exists()
)


class Relations(NamedTuple):
    """The readers who voted for the row's post, who bookmarked it, and who blocked its owner."""

    voters: ScalarSelect[Any]
    bookmarkers: ScalarSelect[Any]
    blockers: ScalarSelect[Any] | None


def relations_of_readers(posts: Subquery) -> Relations:
    """Select the relations of readers who all read all of the posts."""
    return Relations(
        select(Vote.user_id).where(Vote.post_id == posts.c.id, Vote.user_id == _USER_IDS.any_()).scalar_subquery(),
        select(Bookmark.user_id)
        .where(Bookmark.post_id == posts.c.id, Bookmark.user_id == _USER_IDS.any_())
        .scalar_subquery(),
        select(Block.blocker_id)
        .where(Block.blocked_id == posts.c.owner_id, Block.blocker_id == _USER_IDS.any_())
        .scalar_subquery(),
    )


def relations_of_askers(posts: Subquery) -> Relations:
    """Select the relations of the users who requested the row's post. Blocks hide no post from them."""
    return Relations(_among_askers(posts, Vote), _among_askers(posts, Bookmark), None)


def _among_askers(posts: Subquery, relation: type[Vote | Bookmark]) -> ScalarSelect[Any]:
    """Select the users who requested the row's post and have this relation to it.

    `user_ids` and `asked_post_ids` are pairs. Each pair is looked up separately, because a join might read all votes of
    a post to find one.
    """
    row = select(relation.post_id).where(relation.post_id == _ASKED.c.post_id, relation.user_id == _ASKED.c.user_id)
    is_there = row.correlate(_ASKED).scalar_subquery().is_not(None)
    return select(_ASKED.c.user_id).where(_ASKED.c.post_id == posts.c.id, is_there).scalar_subquery()


def with_readers(posts: Subquery, relations: Relations, order: Sequence[UnaryExpression[Any]]) -> AnySelect:
    """Add the relations and sessions to the posts, in this order.

    Without posts, there is one row that has only the sessions, and nulls otherwise.
    """
    arrays = {name: null() if users is None else func.array(users) for name, users in relations._asdict().items()}
    is_first: ColumnElement[bool] = func.row_number().over(order_by=order) == literal_column("1")
    return (
        select(
            *posts.c,
            *(array.label(name) for name, array in arrays.items()),
            *(case((is_first, column)).label(column.name) for column in _IS_VALID.c),
        )
        .select_from(_IS_VALID.outerjoin(posts, true()))
        .order_by(*order)
    )


def parameters(tokens: Iterable[AccessToken]) -> dict[str, object]:
    """Return the parameters of `with_readers`, for users who read the same page."""
    tokens = list(tokens)
    return {
        "session_ids": sorted({token.session_id for token in tokens}),
        "user_ids": sorted({token.user_id for token in tokens}),
    }


def roles_of_valid_sessions(rows: Iterable[PostRow]) -> Mapping[tuple[int, int], str]:
    """Return the role for each valid session, by session and user."""
    for row in rows:
        if row.session_ids is not None:
            return dict(zip(zip(row.session_ids, row.reader_ids or (), strict=True), row.roles or (), strict=True))
    return {}
