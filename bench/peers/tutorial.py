"""Peer in the style of the well-known FastAPI tutorial, with current versions of its libraries.

Sync SQLAlchemy in the style of 1.x: the caller looked up by id in each request, votes counted by an outer join with
GROUP BY, the owner of each post loaded lazily (N+1), a vote in four queries with check-then-act. It knows no sessions
and no `voted`.

Possible improvement: orm_sync.py. In favour of this peer, the pool has one connection per thread: with the tutorial's
default (5 + 10), threads wait and, with more clients, time out.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from app.config import get_settings
from bench.peers import readiness

engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"), pool_size=40, max_overflow=0
)
make_session = sessionmaker(autocommit=False, autoflush=False, bind=engine)
bearer = OAuth2PasswordBearer(tokenUrl="login")
router = APIRouter()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    created_at: Mapped[datetime]


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    content: Mapped[str]
    published: Mapped[bool]
    created_at: Mapped[datetime]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    owner: Mapped[User] = relationship()


class Vote(Base):
    __tablename__ = "votes"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"), primary_key=True)


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    created_at: datetime


class PostBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    title: str
    content: str
    published: bool
    created_at: datetime
    owner_id: int
    owner: UserOut


class PostOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    Post: PostBody
    votes: int


class VoteIn(BaseModel):
    post_id: int
    vote_dir: int


def get_db() -> Iterator[Session]:
    db = make_session()
    try:
        yield db
    finally:
        db.close()


def get_current_user(token: Annotated[str, Depends(bearer)], db: Annotated[Session, Depends(get_db)]) -> User:
    try:
        user_id = jwt.decode(token, get_settings().signing_secret, algorithms=["HS256"]).get("user_id")
    except JWTError:
        raise HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"}) from None
    user = db.query(User).filter(User.id == user_id).first()
    if user is None:
        raise HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})
    return user


@router.get("/posts", response_model=list[PostOut])
def get_posts(
    db: Annotated[Session, Depends(get_db)],
    _current_user: Annotated[User, Depends(get_current_user)],
    limit: int = 10,
    skip: int = 0,
    search: str | None = "",
) -> Any:
    return (
        db.query(Post, func.count(Vote.post_id).label("votes"))
        .join(Vote, Vote.post_id == Post.id, isouter=True)
        .group_by(Post.id)
        .filter(Post.title.contains(search))
        .limit(limit)
        .offset(skip)
        .all()
    )


@router.post("/vote", status_code=201)
def vote(
    wanted: VoteIn,
    db: Annotated[Session, Depends(get_db)],
    current_user: Annotated[User, Depends(get_current_user)],
) -> dict[str, str]:
    post = db.query(Post).filter(Post.id == wanted.post_id).first()
    if not post:
        raise HTTPException(404, f"Post with id: {wanted.post_id} does not exist")
    query = db.query(Vote).filter(Vote.post_id == wanted.post_id, Vote.user_id == current_user.id)
    found = query.first()
    if wanted.vote_dir == 1:
        if found:
            raise HTTPException(409, f"user {current_user.id} has already voted on post {wanted.post_id}")
        db.add(Vote(post_id=wanted.post_id, user_id=current_user.id))
        db.commit()
        return {"message": "successfully added vote"}
    if not found:
        raise HTTPException(404, "Vote does not exist")
    query.delete(synchronize_session=False)
    db.commit()
    return {"message": "successfully deleted vote"}


app = FastAPI()
app.include_router(readiness.router)
app.include_router(router)
