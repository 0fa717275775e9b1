"""`python -m app serve`: the server."""

import logging
from typing import Annotated

import typer

from app.cli.database import require_usable
from app.cli.listening import Host, Port, listen_on
from app.config import ConfigurationError, get_settings, misspelt_settings
from app.server import supervisor


def serve(
    host: Host = None,
    port: Port = None,
    reload: Annotated[bool, typer.Option("--reload", hidden=True)] = False,
) -> None:
    """Serve with WORKERS processes.

    The database must be configured and migrated (alembic upgrade head).
    Starts even if the database is unavailable; GET /readyz then returns the reason.
    SIGTERM stops it gracefully.
    """
    if reload:
        raise ConfigurationError("serve does not reload; use: make dev, or python -m app run --reload")
    listen_on(host, port)
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or use: python -m app run")
    require_usable(settings.database, settings.database_connect_timeout_seconds)

    def announce(address: str, problem: str | None) -> None:
        logger = logging.getLogger("app")
        logger.info("serving on %s", address)
        for sentence in misspelt_settings():
            logger.warning("%s", sentence)
        if settings.environment == "production" and settings.tutorial_defaults:
            # Allowed, because the operator chose it. Logged, because a test's .env may end up in production.
            logger.warning(
                "TUTORIAL_DEFAULTS=true in production: the defaults accept short and common passwords, and show e-mail"
                " addresses to everyone; tokens that name no session are accepted, so SECRET_KEY alone opens accounts"
            )
        if problem is not None:
            logger.warning("not ready: %s", problem)

    with supervisor.listening() as listener:
        supervisor.serve(listener, announce)
