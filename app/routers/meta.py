"""The greeting, health checks and metrics."""

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from app.api import batch_queues
from app.errors import NotReady, Unavailable
from app.middleware.problem_details import responses
from app.observability import metrics

# So that a load balancer gets a response within three seconds even if the database hangs.
MAX_WAIT_FOR_DATABASE_SECONDS = 2.5

router = APIRouter(tags=["meta"])


class Greeting(BaseModel):
    """A greeting, and the paths of the documentation."""

    message: str = Field(description="A greeting.")
    docs: str = Field(description="Path of the Swagger UI page.", examples=["/docs"])
    redoc: str = Field(description="Path of the ReDoc page.", examples=["/redoc"])
    openapi: str = Field(description="Path of this document.", examples=["/openapi.json"])


class Health(BaseModel):
    """The check succeeded."""

    status: Literal["ok"] = Field("ok", description="Always `ok`; a failed check is an error.")


@router.get("/")
async def get_root(request: Request) -> Greeting:
    """Get a greeting and the paths of the documentation. Needs no credentials."""
    prefix = request.scope["root_path"]
    return Greeting(
        message="Hello. This is a social-posts API: sign up at POST /users, log in at POST /login.",
        docs=f"{prefix}/docs",
        redoc=f"{prefix}/redoc",
        openapi=f"{prefix}/openapi.json",
    )


@router.get("/livez")
async def get_livez() -> Health:
    """Check that the process responds. Does not use the database."""
    return Health()


@router.get("/readyz", responses=responses(NotReady))
async def get_readyz(request: Request) -> Health:
    """Check that the server can take requests.

    It can when the database responds, is migrated, and the server is not stopping.
    """
    if getattr(request.app.state, "is_stopping", False):
        raise NotReady("the server is stopping")
    try:
        async with asyncio.timeout(MAX_WAIT_FOR_DATABASE_SECONDS):
            health = await batch_queues.health_checks().submit(None)
    except TimeoutError:
        raise Unavailable from None
    if health.problem:
        raise NotReady(health.problem)
    return Health()


# For operators and not for clients, so it is not in the OpenAPI document.
@router.get("/metrics", include_in_schema=False)
def get_metrics(request: Request) -> Response:
    """Return the metrics of all workers of this server, for Prometheus.

    Requires `METRICS_TOKEN` as a Bearer token. Without that setting, the path is 404, except for callers on the same
    machine in development.
    """
    metrics.authorize(request.headers.get("authorization", ""), request.client and request.client.host)
    return Response(metrics.render(), media_type=metrics.CONTENT_TYPE, headers={"Cache-Control": "no-store"})
