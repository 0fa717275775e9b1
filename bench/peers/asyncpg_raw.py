"""Peer with raw asyncpg: one statement per request, without ORM, response model or batches.

The statement checks session and account, reads the page and the caller's votes on it, and builds the JSON in
PostgreSQL. It is prepared once per connection. The limit is a literal in its text, so that the planner knows it and
keeps one plan. A vote is one statement in its own transaction.

Possible improvement: share round trips among concurrent requests, as this application does.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotAuthenticated
from app.schemas.vote import VoteCounted, VoteIn
from app.security import access_tokens
from bench.peers import readiness

# Many more connections than cores only add context switches; fewer leave PostgreSQL waiting for the network.
CONNECTIONS = int(os.environ.get("ASYNCPG_CONNECTIONS", "10"))
SQL = Path(__file__).resolve().parent.parent / "sql"
CAST = (SQL / "cast.sql").read_text()
RETRACT = (SQL / "retract.sql").read_text()

ITEM = """
    json_build_object(
        'Post', json_build_object(
            'id', post.id, 'title', post.title, 'content', post.content, 'published', post.published,
            'created_at', post.created_at, 'updated_at', post.updated_at, 'owner_id', post.owner_id,
            'owner', json_build_object('id', owner.id, 'username', owner.username, 'created_at', owner.created_at)
        ),
        'votes', stats.votes,
        'voted', EXISTS (SELECT FROM votes WHERE votes.post_id = post.id AND votes.user_id = $2)
    )
"""
ALIVE = """
    FROM sessions JOIN users ON users.id = sessions.user_id
    WHERE sessions.id = $1 AND users.id = $2 AND sessions.expires_at > now() AND users.is_active
"""
POST = f"""
    SELECT (
        SELECT {ITEM}::text FROM posts AS post
        JOIN users AS owner ON owner.id = post.owner_id JOIN post_stats AS stats ON stats.post_id = post.id
        WHERE post.id = $3 AND (post.published OR post.owner_id = $2)
    ) AS body {ALIVE}
"""


def page_statement(*, limit: int, searches: bool) -> str:
    """Return the statement for pages of `limit` posts. $1 session, $2 user, $3 skip, $4 search words."""
    condition = "AND search @@ search_query($4, false)" if searches else ""
    return f"""
        SELECT (
            SELECT coalesce(json_agg({ITEM} ORDER BY post.created_at DESC, post.id DESC), '[]')::text
            FROM (
                SELECT * FROM posts WHERE published {condition}
                ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET $3
            ) AS post
            JOIN users AS owner ON owner.id = post.owner_id JOIN post_stats AS stats ON stats.post_id = post.id
        ) AS body {ALIVE}
    """


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS, command_timeout=30
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


@app.get("/posts")
async def list_posts(
    token: Token,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    skip: Annotated[int, Query(ge=0, le=10_000)] = 0,
    search: str | None = None,
) -> Response:
    words: list[Any] = [search] if search else []
    row = await request.app.state.pool.fetchrow(
        page_statement(limit=limit, searches=bool(search)), token.session_id, token.user_id, skip, *words
    )
    if row is None:
        raise unauthorized()
    return Response(row["body"], media_type="application/json")


@app.get("/posts/{post_id}")
async def get_post(post_id: int, token: Token, request: Request) -> Response:
    row = await request.app.state.pool.fetchrow(POST, token.session_id, token.user_id, post_id)
    if row is None:
        raise unauthorized()
    if row["body"] is None:
        raise HTTPException(404, f"post with id: {post_id} was not found")
    return Response(row["body"], media_type="application/json")


@app.post("/vote", status_code=201)
async def cast_vote(wanted: VoteIn, token: Token, request: Request) -> VoteCounted:
    is_for = wanted.vote_dir == 1
    row = await request.app.state.pool.fetchrow(
        CAST if is_for else RETRACT, token.session_id, token.user_id, wanted.post_id
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
