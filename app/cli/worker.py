"""`python -m app worker`: background tasks without a server."""

import logging.config

from app.background.worker import run_until_stopped
from app.cli.database import require_usable
from app.config import ConfigurationError, get_settings
from app.observability import log_format


def worker() -> None:
    """Send mails and delete expired rows, without serving requests.

    The database must be configured and migrated. Any number of workers may run.
    For deployments whose servers set MAIL_ENABLED=false and CLEANUP_INTERVAL_MINUTES=0.
    SIGTERM stops it gracefully.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL")
    require_usable(settings.database, settings.database_connect_timeout_seconds)
    logging.config.dictConfig(log_format.config(settings))
    run_until_stopped()
