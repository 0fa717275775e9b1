"""Commands that run servers and workers, and `openapi`."""

import json
import logging
import logging.config

import typer

from app.cli.database import database, migrate, require_utf8
from app.config import ConfigurationError, get_settings
from app.observability import log_format
from app.server import supervisor


def run() -> None:
    """Migrate and serve, for development. Starts the embedded PostgreSQL if no database is configured.

    Listens on HOST and PORT (127.0.0.1:8000; PORT=0 picks a free port). Ctrl-C stops it; the data stay in .local/.
    """
    with supervisor.listening() as listener, database() as where:
        migrate()

        def announce(address: str, _problem: str | None) -> None:
            typer.echo(f"Database  {where}")
            typer.echo(f"Serving   {address}   (Ctrl-C stops it)")
            typer.echo(f"Try       {address}/docs   or   curl {address}/")

        supervisor.serve(listener, announce)


def serve() -> None:
    """Serve with WORKERS processes. The database must be configured and migrated (alembic upgrade head).

    Starts even if the database is unavailable; GET /readyz then returns the reason. SIGTERM stops it gracefully.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or use: python -m app run")
    require_utf8(settings.database, settings.database_connect_timeout_seconds)

    def announce(address: str, problem: str | None) -> None:
        logger = logging.getLogger("app")
        logger.info("serving on %s", address)
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


def worker() -> None:
    """Send mails and delete expired rows, without serving requests. The database must be configured and migrated.

    For deployments whose servers set MAIL_ENABLED=false and CLEANUP_INTERVAL_MINUTES=0. Any number of workers may run.
    SIGTERM stops it gracefully.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL")
    require_utf8(settings.database, settings.database_connect_timeout_seconds)
    from app.background.worker import run_until_stopped  # noqa: PLC0415 - reads the settings.

    logging.config.dictConfig(log_format.config(settings))
    run_until_stopped()


def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import app  # noqa: PLC0415 - only this command builds the application.

    typer.echo(json.dumps(app.api.openapi(), indent=2, ensure_ascii=False))
