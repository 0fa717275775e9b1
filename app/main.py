"""The ASGI application: lifespan, middleware and routers."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from opentelemetry import trace
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__, realworld
from app.api import batch_queues
from app.api.authentication import is_admin, user_of
from app.api.fast_path import FastPath
from app.api.openapi import describe
from app.background import periodic, worker
from app.config import ConfigurationError, Settings, explain, get_settings
from app.database import watchdog
from app.database.engines import dispose, get_engine, get_primary
from app.database.replica import KEPT_EVERY, get_replicas
from app.live.registry import Registry
from app.middleware import continuation, problem_details
from app.middleware.body_limit import BodyLimit
from app.middleware.cors import Cors
from app.middleware.head_limit import HeadLimit
from app.middleware.head_requests import HeadRequests
from app.middleware.load_shedding import LoadShedding
from app.middleware.path_aliases import PathAliases
from app.middleware.profiling import Profiling
from app.middleware.rate_limit import HEADERS, RateLimit
from app.middleware.request_context import QUIET_PATHS, RequestContext
from app.middleware.response_fields import ResponseFields
from app.middleware.security_headers import SecurityHeaders
from app.middleware.trusted_proxies import TrustedProxies
from app.middleware.unhandled_errors import UnhandledErrors
from app.realworld.contract import RealWorldContract
from app.routers import FAST, ROUTERS, web

LOCALHOST = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
# How long a stopping process, whose requests have ended, waits for its batch queues before it gives up the connections.
# With uvicorn's 30 s for requests, this is below the 35 s of docker-compose.yml.
MAX_DRAIN_SECONDS = 1
# What the form of an upload has beside the file: the text, and the headers of the parts.
MAX_FORM_BYTES = 20_000
EXPOSED_HEADERS = ["ETag", "Idempotency-Replayed", "Link", "Location", "Retry-After", "X-Request-ID", *HEADERS]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the background tasks.

    At SIGTERM, report not ready to load balancers, then drain the batch queues.
    """
    get_engine()
    app.state.is_stopping = False
    app.state.live = Registry(lambda: bool(app.state.is_stopping))
    if threading.current_thread() is threading.main_thread():
        stop = signal.getsignal(signal.SIGTERM)

        def begin_to_stop(number: int, frame: FrameType | None) -> None:
            app.state.is_stopping = True
            if callable(stop):
                stop(number, frame)

        signal.signal(signal.SIGTERM, begin_to_stop)
    beat_interval = timedelta(seconds=watchdog.BEAT_INTERVAL_SECONDS)
    tasks = [periodic.Task("heartbeat", lambda _: get_primary().beat(), beat_interval)]
    if get_replicas():
        tasks.append(periodic.Task("replica", _keep_replicas, KEPT_EVERY))
    with worker.running(*tasks):
        yield
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_DRAIN_SECONDS):
                await batch_queues.drain()
        # No request is left. A thread that waits for a frozen server would keep the process from ending.
        watchdog.end_waits()
        await batch_queues.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_DRAIN_SECONDS):
                await app.state.live.wait_closed()
    for replica in get_replicas():
        replica.close()
    dispose()
    watchdog.allow_waits()


def _keep_replicas(_: Any) -> None:
    for replica in get_replicas():
        replica.keep()


def cors(settings: Settings) -> dict[str, Any]:
    """The CORS options: the allow-list of origins.

    Without an allow-list, development allows any page of this machine.
    """
    origins: dict[str, Any] = {"allow_origins": settings.cors_origins or []}
    if settings.cors_origins is None and settings.environment == "development":
        origins = {"allow_origin_regex": LOCALHOST}
    return {
        **origins,
        "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        "allow_headers": ["*"],
        "expose_headers": EXPOSED_HEADERS,
        "allow_credentials": True,
        "max_age": 600,
    }


def limited(settings: Settings) -> list[Middleware]:
    """The middleware that limits the requests of each caller, if enabled."""
    if not settings.rate_limits_enabled:
        return []
    return [
        Middleware(
            RateLimit,
            per_minute=settings.rate_limit_per_minute,
            max_read_seconds=settings.database_statement_timeout_seconds,
            user_of=user_of,
        )
    ]


def profiled(settings: Settings) -> list[Middleware]:
    """The middleware that profiles requests of admins, if enabled."""
    return [Middleware(Profiling, is_admin=is_admin)] if settings.profiling_enabled else []


def narrowed(settings: Settings) -> list[Middleware]:
    """The middleware that removes fields from responses, if enabled."""
    return [Middleware(ResponseFields)] if settings.response_fields == "tutorial" else []


def translated(settings: Settings) -> list[Middleware]:
    """The middleware that serves the contract of RealWorld, if enabled."""
    return [Middleware(RealWorldContract, root_path=settings.root_path or "")] if settings.realworld_enabled else []


class Application:
    """The ASGI application: middleware, the outermost first, around FastAPI.

    FastAPI's own outer layers are inside of it. They cost 15 µs per request, and requests of the fast path do not need
    them.
    """

    def __init__(self, api: FastAPI, middleware: Sequence[Middleware]) -> None:
        self.api = api
        self.middleware = middleware
        self.outermost: ASGIApp = api
        for cls, args, kwargs in reversed(middleware):
            self.outermost = cls(self.outermost, *args, **kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            scope["app"] = self.api
            await continuation.run(self.outermost, scope, receive, send)
        elif scope["type"] == "lifespan" and (problem := _reason_not_to_start()):
            # In one line: uvicorn would print the traceback of an exception.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": problem})
        else:
            await self.api(scope, receive, send)


def _reason_not_to_start() -> str:
    """Return why the process cannot serve; empty if it can.

    For a process that another command than ours started, such as `uvicorn`.
    """
    try:
        settings = get_settings()
        if settings.database is None:
            raise ConfigurationError("no database is configured; set DATABASE_URL, or use: python -m app run")  # noqa: TRY301
        _ = settings.signing_secret
    except ConfigurationError as error:
        return explain(error)
    return ""


def create_app() -> Application:
    """Build the application from the settings.

    Raises `ConfigurationError` if they are invalid.
    """
    settings = get_settings()
    layers = middleware(settings)
    is_traced = settings.fastapi_otel_auto_configure or not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )
    api = FastAPI(
        title="Social posts API",
        version=__version__,
        summary="Sign up, log in, write posts, vote on them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=operation_id,
        # Its logs would contain the messages of exceptions, which may quote what clients sent. Our logs leave them out.
        telemetry={"auto_configure": settings.fastapi_otel_auto_configure, "logs": False, "exclude": is_probe},
        # FastAPI's span has to be the outermost layer, so that all log lines of the request name its trace.
        middleware=layers if is_traced else [],
    )
    problem_details.install(api)
    if settings.web_client_enabled:  # Before the API: of `/`, it takes the page loads of browsers.
        web.install(api, settings)
    for router in (*ROUTERS, *(realworld.ROUTERS if settings.realworld_enabled else ())):
        api.include_router(router)
    describe(api)
    if is_traced:  # Without the fast path: FastAPI's spans name each step.
        return Application(api, [])
    routes = [route for router in ROUTERS for route in router.routes]
    return Application(api, [*layers, Middleware(FastPath, routes=routes, adapters=FAST)])


def middleware(settings: Settings) -> list[Middleware]:
    """The middleware, the outermost first."""
    return [
        # The client's address has to be known before anything is logged or counted.
        Middleware(TrustedProxies, proxies=settings.trusted_proxies or []),
        # Outside of every layer that can respond.
        *narrowed(settings),
        # Before every layer that can respond, so that every response has a request id.
        Middleware(
            RequestContext,
            slow_seconds=settings.slow_request_ms / 1000,
            shows_timing=settings.environment == "development",
        ),
        Middleware(SecurityHeaders, hsts=settings.environment == "production"),
        # Before the limits and the routes, so that browsers can read refusals too.
        Middleware(Cors, **cors(settings)),
        *translated(settings),
        Middleware(LoadShedding, max_in_flight=settings.max_in_flight),
        Middleware(UnhandledErrors),
        Middleware(HeadLimit),
        Middleware(PathAliases, root_path=settings.root_path or ""),
        *limited(settings),
        Middleware(
            BodyLimit,
            max_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.media_max_bytes + MAX_FORM_BYTES,
        ),
        Middleware(HeadRequests),
        *profiled(settings),
    ]


def is_probe(scope: MutableMapping[str, Any]) -> bool:
    """Whether the request is a probe.

    Monitors send probes every few seconds, which would hide other requests.
    """
    return scope["path"] in QUIET_PATHS


def operation_id(route: APIRoute) -> str:
    """The function's name, which generated clients use as the name of the method."""
    return route.name


try:
    app = create_app()
except ConfigurationError as error:  # `uvicorn app.main:app` imports this module first.
    raise SystemExit(explain(error)) from None
