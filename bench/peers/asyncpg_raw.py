"""Peer with raw asyncpg: one statement per request, without ORM, response model or batches.

The statements are those of bench/statements.py, prepared once per connection. They check session and account, and build
the JSON in PostgreSQL. A vote is one statement in its own transaction.

Possible improvement: share round trips among concurrent requests, as this application does.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import Request
from starlette.responses import Response

from app.errors import MalformedCursor, NotAuthenticated
from app.schemas import cursor as cursors
from app.schemas.vote import VoteCounted, VoteIn
from app.security import access_tokens
from bench.peers import readiness
from bench.statements import LIMIT, SETTINGS, STATEMENTS

# Many more connections than cores only add context switches; fewer leave PostgreSQL waiting for the network.
CONNECTIONS = int(os.environ.get("ASYNCPG_CONNECTIONS", "10"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"],
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        command_timeout=30,
        server_settings=SETTINGS,
    ) as pool:
        app.state.pool = pool
        yield


bearer = OAuth2PasswordBearer(tokenUrl="login")
app = FastAPI(lifespan=lifespan)
app.include_router(readiness.router)


async def verified(token: Annotated[str, Depends(bearer)]) -> access_tokens.AccessToken:
    try:
        return access_tokens.verify(token)
    except NotAuthenticated:
        raise unauthorized() from None


Token = Annotated[access_tokens.AccessToken, Depends(verified)]


def unauthorized() -> HTTPException:
    return HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})


def position(cursor: str, sort: str) -> list[Any]:
    """Return sort value and id of a cursor that this application signed."""
    try:
        made_for, is_backward, value, post_id, *_ = cursors.verify(cursor)
    except MalformedCursor:
        raise HTTPException(422, "The cursor is malformed") from None
    if made_for != sort or is_backward:
        raise HTTPException(422, "The cursor is of another list")
    return [datetime.fromisoformat(str(value)) if sort == "new" else value, post_id]


@app.get("/posts")
async def list_posts(
    token: Token,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    skip: Annotated[int, Query(ge=0, le=10_000)] = 0,
    search: str | None = None,
    sort: Literal["new", "top", "hot"] = "new",
    owner_id: int | None = None,
    tag: str | None = None,
    cursor: str | None = None,
) -> Response:
    name: str
    values: list[Any]
    if search:
        name, values = "search", [search]
    elif owner_id is not None:
        name, values = "owner", [owner_id, skip]
    elif tag is not None:
        name, values = "tag", [tag, skip]
    elif cursor is not None:
        name, values = f"{sort}_after", position(cursor, sort)
    elif sort == "new" and skip == 0:
        name, values = "new", []
    else:
        name, values = f"{sort}_skip", [skip]
    row = await request.app.state.pool.fetchrow(
        STATEMENTS[name].replace(LIMIT, str(limit)), token.session_id, token.user_id, *values
    )
    if row is None:
        raise unauthorized()
    return Response(row["body"], media_type="application/json")


@app.get("/home")
async def list_home(token: Token, request: Request, limit: Annotated[int, Query(ge=1, le=10)] = 10) -> Response:
    statement = STATEMENTS["home"].replace(LIMIT, str(limit))
    row = await request.app.state.pool.fetchrow(statement, token.session_id, token.user_id)
    if row is None:
        raise unauthorized()
    return Response(row["body"], media_type="application/json")


@app.get("/posts/{post_id}")
async def get_post(post_id: int, token: Token, request: Request) -> Response:
    row = await request.app.state.pool.fetchrow(STATEMENTS["post"], token.session_id, token.user_id, post_id)
    if row is None:
        raise unauthorized()
    if row["body"] is None:
        raise HTTPException(404, f"post with id: {post_id} was not found")
    return Response(row["body"], media_type="application/json")


@app.post("/vote", status_code=201)
async def cast_vote(wanted: VoteIn, token: Token, request: Request) -> VoteCounted:
    is_for = wanted.vote_dir == 1
    row = await request.app.state.pool.fetchrow(
        STATEMENTS["cast" if is_for else "retract"], token.session_id, token.user_id, wanted.post_id
    )
    if not row["is_alive"]:
        raise unauthorized()
    if row["votes"] is None:
        raise HTTPException(404, f"Post with id: {wanted.post_id} does not exist")
    if not row["changed"]:
        raise (
            HTTPException(409, f"user {token.user_id} has already voted on post {wanted.post_id}")
            if is_for
            else HTTPException(404, "Vote does not exist")
        )
    return VoteCounted(message="successfully added vote" if is_for else "successfully deleted vote", votes=row["votes"])
