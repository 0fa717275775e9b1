"""`python -m app run`: migrate and serve, for development."""

import typer

from app.cli.database import database
from app.cli.migrations import migrate
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
