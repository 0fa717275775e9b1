"""The greeting, and whether the server lives and is ready."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request

from app import lanes
from app.errors import NotReady
from app.problems import responses

router = APIRouter(tags=["meta"])


class Greeting(BaseModel):
    """Where things are."""

    message: str
    docs: str
    redoc: str
    openapi: str


class Status(BaseModel):
    """That all is well."""

    status: Literal["ok"] = "ok"


@router.get("/")
async def get_root(request: Request) -> Greeting:
    """Say hello."""
    prefix = request.scope["root_path"]
    return Greeting(
        message="Hello. This is a social-posts API: sign up at POST /users, log in at POST /login.",
        docs=f"{prefix}/docs",
        redoc=f"{prefix}/redoc",
        openapi=f"{prefix}/openapi.json",
    )


@router.get("/livez")
async def get_livez() -> Status:
    """Tell whether this process answers. Asks nothing of the database."""
    return Status()


@router.get("/readyz", responses=responses(NotReady))
async def get_readyz(request: Request) -> Status:
    """Tell whether requests should be sent here: the database answers, is migrated, and the server is not stopping."""
    if getattr(request.app.state, "is_stopping", False):
        raise NotReady("the server is stopping")
    health = await lanes.health_checks().submit(None)
    if not health.is_migrated:
        raise NotReady(f"the database is at migration {health.revision}, not {health.head}; run: alembic upgrade head")
    return Status()
