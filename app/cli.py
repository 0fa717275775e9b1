"""`python -m app …`: running the server, and what an operator does beside it."""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import uvicorn
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from alembic import command
from app import local_postgres
from app.config import ConfigurationError, get_settings
from app.services.health import ALEMBIC_INI

cli = typer.Typer(
    help="The social-posts API: a server, and the tools to look after it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; whatever the user can mend is said in one line."""
    try:
        cli()
    except (ConfigurationError, local_postgres.LocalPostgresError) as error:
        sys.exit(f"error: {error}")
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        sys.exit(f"error: the database does not answer: {reason}")


@contextmanager
def database() -> Iterator[str]:
    """The configured database, or the embedded server for as long as the block runs; yields where it is, in words.

    The embedded server's address goes into the environment, so that worker processes find it too.
    """
    configured = get_settings().database
    if configured is not None:
        yield f"{configured.host}:{configured.port or 5432}/{configured.database}"
        return
    with local_postgres.running() as url:
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        get_settings.cache_clear()
        yield f"embedded PostgreSQL on port {url.port}, data in .local/"


def migrate() -> None:
    """Bring the database to the newest migration."""
    config = Config(ALEMBIC_INI)
    config.attributes["configure_logging"] = False
    command.upgrade(config, "head")


@cli.command()
def run() -> None:
    """Serve for development: start the embedded PostgreSQL if no database is configured, migrate, serve."""
    settings = get_settings()
    _require_free_port(settings.host, settings.port)
    with database() as where:
        migrate()
        address = f"http://{settings.host}:{settings.port}"
        typer.echo(f"Database  {where}")
        typer.echo(f"Serving   {address}   (Ctrl-C stops it)")
        typer.echo(f"Try       {address}/docs   or   curl {address}/")
        _serve()


@cli.command()
def serve() -> None:
    """Serve, with WORKERS processes. The database must be configured and migrated (alembic upgrade head)."""
    if get_settings().database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or use: python -m app run")
    _serve()


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import app  # noqa: PLC0415 - building the application is this command's work, not every command's.

    typer.echo(json.dumps(app.openapi(), indent=2, ensure_ascii=False))


@cli.command()
def seed(
    users: Annotated[int, typer.Option(min=1, help="People.")] = 1_000,
    posts: Annotated[int, typer.Option(min=0, help="Posts.")] = 10_000,
    votes: Annotated[int, typer.Option(min=0, help="Votes, most of them on few posts.")] = 100_000,
) -> None:
    """Fill the database with believable people, posts and votes."""
    raise NotImplementedError


def _serve() -> None:
    settings = get_settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    workers = settings.worker_count
    uvicorn.run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        workers=workers if workers > 1 else None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Who called is what the socket says. Behind a proxy, uvicorn's own FORWARDED_ALLOW_IPS names the proxy.
        timeout_graceful_shutdown=30,
    )


def _require_free_port(host: str, port: int) -> None:
    """Say it before anything is started. Raises `ConfigurationError`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another: PORT=8001 make run"
            ) from None
