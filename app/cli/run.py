"""`python -m app run`: migrate and serve, for development."""

from typing import Annotated

import typer

from app.cli.database import database
from app.cli.listening import Host, Port, listen_on
from app.cli.migrations import migrate
from app.config import get_settings, misspelt_settings
from app.server import supervisor


def run(
    host: Host = None,
    port: Port = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart the server when the code changes. Migrates at the start only.")
    ] = False,
) -> None:
    """Migrate and serve, for development.

    Starts the embedded PostgreSQL if no database is configured.
    Listens on HOST and PORT (127.0.0.1:8000; PORT=0 picks a free port).
    Ctrl-C stops it; the data stay in .local/.
    """
    listen_on(host, port)
    with supervisor.listening() as listener, database() as where:
        migrate()

        def announce(address: str, _problem: str | None) -> None:
            for sentence in misspelt_settings():
                typer.echo(f"Warning   {sentence}")
            typer.echo(f"Database  {where}")
            typer.echo(f"Serving   {address}   (Ctrl-C stops it)")
            client = f"{address}/web/   or   " if get_settings().web_client_enabled else ""
            typer.echo(f"Try       {client}{address}/docs   or   curl {address}/")

        supervisor.serve(listener, announce, reloads=reload)
