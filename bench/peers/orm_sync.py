"""Peer with the synchronous ORM, idiomatic and well written: a thread and a connection per request.

SQLAlchemy 2.0 statements, the caller in one query (session and account), the page in one (owner joined, counts from
`post_stats`, keyset order by index, places found before posts are joined), the flags in one. A vote is one INSERT … ON
CONFLICT. `response_model` makes the answer. The pool has a connection for each thread, and AUTOCOMMIT saves reads their
BEGIN and ROLLBACK.

Possible improvement: rows instead of entities, one statement instead of three, JSON without `response_model`, as in
asyncpg_raw.py. The thread per request remains, and with it a GIL handover at each round trip.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import ColumnElement, create_engine, delete, func, literal, select, tuple_, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager

from app import models
from app.errors import MalformedCursor, NotAuthenticated
from app.schemas import cursor as cursors
from app.schemas.post import PostOut, PostWithVotes
from app.schemas.vote import VoteCounted, VoteIn
from app.security import access_tokens
from bench.peers import readiness

THREADS = 40  # As many as FastAPI has.

engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"), pool_size=THREADS, max_overflow=0
)
reading_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
bearer = OAuth2PasswordBearer(tokenUrl="login")
app = FastAPI()
app.include_router(readiness.router)


def get_db() -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as db, db.begin():
        yield db


def get_reading_db() -> Iterator[Session]:
    with Session(reading_engine) as db:
        yield db


Db = Annotated[Session, Depends(get_db, scope="function", max_concurrency=THREADS)]
ReadingDb = Annotated[Session, Depends(get_reading_db, scope="function", max_concurrency=THREADS)]


async def verified(token: Annotated[str, Depends(bearer)]) -> access_tokens.AccessToken:
    try:
        return access_tokens.verify(token)
    except NotAuthenticated:
        raise unauthorized() from None


Token = Annotated[access_tokens.AccessToken, Depends(verified)]


def unauthorized() -> HTTPException:
    return HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})


def caller_id(db: Session, token: access_tokens.AccessToken) -> int:
    """Return the id of the caller if session and account are valid."""
    user_id = db.scalar(
        select(models.User.id)
        .join(models.Session, models.Session.is_valid())
        .where(models.Session.id == token.session_id, models.User.id == token.user_id)
    )
    if user_id is None:
        raise unauthorized()
    return user_id


POSTS = (
    select(models.Post, models.PostStats.votes, models.PostStats.comments)
    .join(models.Post.owner)
    .options(contains_eager(models.Post.owner))
    .join(models.PostStats, models.PostStats.post_id == models.Post.id)
)


Sort = Literal["new", "top", "hot"]
ORDERS: dict[Sort, tuple[ColumnElement[Any], ColumnElement[Any]]] = {
    "new": (models.Post.created_at.expression, models.Post.id.expression),
    "top": (models.PostStats.votes.expression, models.PostStats.post_id.expression),
    "hot": (models.PostStats.hot.expression, models.PostStats.post_id.expression),
}


def position(cursor: str, sort: Sort) -> tuple[Any, Any]:
    """Return sort value and id of a cursor that this application signed."""
    try:
        made_for, is_backward, value, post_id, *_ = cursors.verify(cursor)
    except MalformedCursor:
        raise HTTPException(422, "The cursor is malformed") from None
    if made_for != sort or is_backward:
        raise HTTPException(422, "The cursor is of another list")
    return (datetime.fromisoformat(str(value)) if sort == "new" else value, post_id)


@app.get("/posts", response_model=list[PostWithVotes])
def list_posts(
    token: Token,
    db: ReadingDb,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    skip: Annotated[int, Query(ge=0, le=10_000)] = 0,
    search: str | None = None,
    sort: Sort = "new",
    owner_id: int | None = None,
    cursor: str | None = None,
) -> list[PostWithVotes]:
    user_id = caller_id(db, token)
    value, post_id = ORDERS[sort]
    table = models.Post if sort == "new" else models.PostStats
    places = select(post_id.label("id"), value.label("value")).where(table.published)
    if search:
        places = places.where(models.Post.search.op("@@")(func.search_query(search, False)))
    if owner_id is not None:
        places = places.where(models.Post.owner_id == owner_id)
    if cursor is not None:
        places = places.where(tuple_(value, post_id) < tuple_(*position(cursor, sort)))
    place = places.order_by(value.desc(), post_id.desc()).limit(limit).offset(skip).subquery()
    page = POSTS.join(place, place.c.id == models.Post.id).order_by(place.c.value.desc(), place.c.id.desc())
    return with_flags(db, user_id, [(*row,) for row in db.execute(page)])


@app.get("/posts/{post_id}", response_model=PostWithVotes)
def get_post(post_id: int, token: Token, db: ReadingDb) -> PostWithVotes:
    user_id = caller_id(db, token)
    row = db.execute(POSTS.where(models.Post.id == post_id)).one_or_none()
    if row is None or not (row.Post.published or row.Post.owner_id == user_id):
        raise HTTPException(404, f"post with id: {post_id} was not found")
    (found,) = with_flags(db, user_id, [(*row,)])
    return found


def with_flags(db: Session, user_id: int, rows: list[tuple[models.Post, int, int]]) -> list[PostWithVotes]:
    ids = [post.id for post, *_ in rows]
    of_each = (
        select(table.post_id, literal(table.__tablename__)).where(table.user_id == user_id, table.post_id.in_(ids))
        for table in (models.Vote, models.Bookmark)
    )
    flags = {tuple(row) for row in db.execute(union_all(*of_each))}
    shown = [
        PostWithVotes(
            Post=PostOut.model_validate(post),
            votes=votes,
            comments=comments,
            voted=(post.id, "votes") in flags,
            bookmarked=(post.id, "bookmarks") in flags,
        )
        for post, votes, comments in rows
    ]
    for item in shown:
        if item.Post.owner_id != user_id:  # Others' addresses are private.
            item.Post.owner.email = f"{item.Post.owner.username}@users.noreply.example.com"
    return shown


@app.post("/vote", status_code=201)
def cast_vote(wanted: VoteIn, token: Token, db: Db) -> VoteCounted:
    user_id = caller_id(db, token)
    Post, Vote = models.Post, models.Vote  # noqa: N806
    if wanted.vote_dir == 1:
        votable = select(Post.id, literal(user_id)).where(Post.id == wanted.post_id, Post.published)
        changed = db.scalar(
            insert(Vote)
            .from_select(["post_id", "user_id"], votable, include_defaults=False)
            .on_conflict_do_nothing()
            .returning(Vote.post_id)
        )
    else:
        changed = db.scalar(
            delete(Vote).where(Vote.post_id == wanted.post_id, Vote.user_id == user_id).returning(Vote.post_id)
        )
    votes = db.scalar(
        select(models.PostStats.votes).where(models.PostStats.post_id == wanted.post_id, models.PostStats.published)
    )
    if votes is None:
        raise HTTPException(404, f"Post with id: {wanted.post_id} does not exist")
    if changed is None and wanted.vote_dir == 1:
        raise HTTPException(409, f"user {user_id} has already voted on post {wanted.post_id}")
    if changed is None:
        raise HTTPException(404, "Vote does not exist")
    return VoteCounted(
        message="successfully added vote" if wanted.vote_dir == 1 else "successfully deleted vote", votes=votes
    )
