"""Ceiling without a database: the parameters and token check of `GET /posts` with a constant body.

It shows the cost of FastAPI itself. The body is a real page that the benchmark stores in the file CONSTANT_BODY. A raw
ASGI application would be several times faster, but without parameters or documentation.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from starlette.responses import Response

from app.errors import NotAuthenticated
from app.security import access_tokens
from bench.peers import readiness

BODY = Path(os.environ["CONSTANT_BODY"]).read_bytes()

bearer = OAuth2PasswordBearer(tokenUrl="login")
app = FastAPI()
app.include_router(readiness.router)


async def verified(token: Annotated[str, Depends(bearer)]) -> access_tokens.AccessToken:
    try:
        return access_tokens.verify(token)
    except NotAuthenticated:
        raise HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"}) from None


@app.get("/posts")
async def list_posts(
    _token: Annotated[access_tokens.AccessToken, Depends(verified)],
    _limit: Annotated[int, Query(alias="limit", ge=1, le=100)] = 10,
    _skip: Annotated[int, Query(alias="skip", ge=0, le=10_000)] = 0,
    _search: Annotated[str | None, Query(alias="search", max_length=500)] = None,
    _sort: Annotated[Literal["new", "old", "top", "hot"], Query(alias="sort")] = "new",
    _owner_id: Annotated[int | None, Query(alias="owner_id")] = None,
    _published: Annotated[bool | None, Query(alias="published")] = None,
    _created_after: Annotated[datetime | None, Query(alias="created_after")] = None,
    _created_before: Annotated[datetime | None, Query(alias="created_before")] = None,
    _cursor: Annotated[str | None, Query(alias="cursor", max_length=4000)] = None,
    _if_none_match: Annotated[str | None, Header(alias="if-none-match")] = None,
) -> Response:
    return Response(BODY, media_type="application/json")
