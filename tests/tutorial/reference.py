"""The contract of the freeCodeCamp course "Python API Development", as an application to compare ours with.

It is written from the contract: routes, fields, status codes, messages, order of checks. It answers what the course's
final application answers, its mistakes included (a taken e-mail address is a 500, a message says "alredy").

The course used pydantic 1 and FastAPI 0.7x. Where a client can see a difference, this module does as they did:

- Text fields accept JSON numbers and booleans (`Text`).
- A body without `Content-Type` is read as JSON (`strict_content_type=False`).
- `EmailStr` removes a name and spaces around the address, and accepts domains that are reserved for tests, such as
  `mail.test` (`test_environment`).

Not imitated: the texts inside a 422 are those of pydantic 2, times end in `Z`, and a fraction is no integer (pydantic 1
cut it). Lists are ordered by id: the course names no order, and PostgreSQL returns small tables in this one.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import bcrypt
from email_validator import EmailNotValidError, validate_email
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import JWTError, jwt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import TIMESTAMP, Engine, ForeignKey, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from starlette.requests import Request

ALGORITHM = "HS256"
TOKEN_LIFETIME = timedelta(minutes=30)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=text("now()"))


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    content: Mapped[str]
    published: Mapped[bool] = mapped_column(server_default="TRUE")
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=text("now()"))
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    owner: Mapped[User] = relationship()


class Vote(Base):
    __tablename__ = "votes"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)


def _text_of_number(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


def _email(value: str) -> str:
    with_name = re.fullmatch(r"[\w ]*<(.+)>", value.strip())
    try:
        return validate_email(
            (with_name[1] if with_name else value).strip(), check_deliverability=False, test_environment=True
        ).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


Text = Annotated[str, BeforeValidator(_text_of_number)]


class UserIn(BaseModel):
    email: Annotated[str, AfterValidator(_email)]
    password: Text


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    created_at: datetime


class PostIn(BaseModel):
    title: Text
    content: Text
    published: bool = True


class PostOut(PostIn):
    model_config = ConfigDict(from_attributes=True)
    id: int
    created_at: datetime
    owner_id: int
    owner: UserOut


class PostWithVotes(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    Post: PostOut
    votes: int


class VoteIn(BaseModel):
    post_id: int
    dir: Annotated[int, Field(le=1)]


class Token(BaseModel):
    access_token: str
    token_type: str


def get_db(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine) as db:
        yield db


Db = Annotated[Session, Depends(get_db)]


def get_current_user(
    request: Request, token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))], db: Db
) -> User | None:
    """Return the user that the token names.

    None where there is no such user: the course does not check.
    """
    refused = HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})
    try:
        user_id = jwt.decode(token, request.app.state.secret, algorithms=[ALGORITHM]).get("user_id")
    except JWTError:
        raise refused from None
    if user_id is None:
        raise refused
    return db.scalars(select(User).where(User.id == user_id)).first()


Caller = Annotated[User | None, Depends(get_current_user)]
root = APIRouter()
posts = APIRouter(prefix="/posts")
users = APIRouter(prefix="/users")
votes = APIRouter(prefix="/vote")


@root.get("/")
def get_root() -> dict[str, str]:
    return {"message": "Hello World"}


@root.post("/login", response_model=Token)
def login(request: Request, form: Annotated[OAuth2PasswordRequestForm, Depends()], db: Db) -> dict[str, str]:
    user = db.scalars(select(User).where(User.email == form.username)).first()
    # bcrypt reads 72 bytes; passlib cut what was longer.
    if user is None or not bcrypt.checkpw(form.password.encode()[:72], user.password.encode()):
        raise HTTPException(403, "Invalid Credentials")
    claims = {"user_id": user.id, "exp": datetime.now(UTC) + TOKEN_LIFETIME}
    return {"access_token": jwt.encode(claims, request.app.state.secret, ALGORITHM), "token_type": "bearer"}


@users.post("/", status_code=201, response_model=UserOut)
def create_user(wanted: UserIn, db: Db) -> User:
    hashed = bcrypt.hashpw(wanted.password.encode()[:72], bcrypt.gensalt(4)).decode()
    user = User(email=wanted.email, password=hashed)
    db.add(user)
    db.commit()
    return user


@users.get("/{id}", response_model=UserOut)
def get_user(id: int, db: Db) -> User:  # noqa: A002 - the name is in the `loc` of a 422.
    user = db.get(User, id)
    if user is None:
        raise HTTPException(404, f"User with id: {id} does not exist")
    return user


@posts.get("/", response_model=list[PostWithVotes])
def get_posts(db: Db, _caller: Caller, limit: int = 10, skip: int = 0, search: str | None = "") -> list[Any]:
    counted = select(Post, func.count(Vote.post_id).label("votes")).outerjoin(Vote).group_by(Post.id).order_by(Post.id)
    return list(db.execute(counted.where(Post.title.contains(search or "")).limit(limit).offset(skip)))


@posts.post("/", status_code=201, response_model=PostOut)
def create_post(wanted: PostIn, db: Db, caller: Caller) -> Post:
    post = Post(**wanted.model_dump(), owner_id=_id_of(caller))
    db.add(post)
    db.commit()
    return post


@posts.get("/{id}", response_model=PostWithVotes)
def get_post(id: int, db: Db, _caller: Caller) -> Any:  # noqa: A002
    counted = select(Post, func.count(Vote.post_id).label("votes")).outerjoin(Vote).group_by(Post.id)
    found = db.execute(counted.where(Post.id == id)).first()
    if found is None:
        raise HTTPException(404, f"post with id: {id} was not found")
    return found


@posts.put("/{id}", response_model=PostOut)
def update_post(id: int, wanted: PostIn, db: Db, caller: Caller) -> Post:  # noqa: A002
    post = _own_post(db, id, caller)
    for name, value in wanted.model_dump().items():
        setattr(post, name, value)
    db.commit()
    return post


@posts.delete("/{id}", status_code=204)
def delete_post(id: int, db: Db, caller: Caller) -> Response:  # noqa: A002
    db.delete(_own_post(db, id, caller))
    db.commit()
    return Response(status_code=204)


@votes.post("/", status_code=201)
def vote(wanted: VoteIn, db: Db, caller: Caller) -> dict[str, str]:
    if db.get(Post, wanted.post_id) is None:
        raise HTTPException(404, f"Post with id: {wanted.post_id} does not exist")
    user_id = _id_of(caller)
    found = db.get(Vote, (user_id, wanted.post_id))
    if wanted.dir == 1:
        if found:
            raise HTTPException(409, f"user {user_id} has alredy voted on post {wanted.post_id}")
        db.add(Vote(user_id=user_id, post_id=wanted.post_id))
        db.commit()
        return {"message": "successfully added vote"}
    if not found:
        raise HTTPException(404, "Vote does not exist")
    db.delete(found)
    db.commit()
    return {"message": "successfully deleted vote"}


def _own_post(db: Session, post_id: int, caller: User | None) -> Post:
    post = db.get(Post, post_id)
    if post is None:
        raise HTTPException(404, f"post with id: {post_id} does not exist")
    if post.owner_id != _id_of(caller):
        raise HTTPException(403, "Not authorized to perform requested action")
    return post


def _id_of(caller: User | None) -> int:
    """Fail where the token's user does not exist, as the course does: the answer is a 500."""
    assert caller is not None
    return caller.id


def create_reference(engine: Engine, secret: str) -> FastAPI:
    """Build the application on a database of its own, whose tables are created."""
    Base.metadata.create_all(engine)
    app = FastAPI(strict_content_type=False)
    app.state.engine, app.state.secret = engine, secret
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    for router in (posts, users, root, votes):
        app.include_router(router)
    return app
