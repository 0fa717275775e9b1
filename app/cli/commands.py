"""Entry point of `python -m app …`, with the commands in the order of `--help`."""

import sys

import typer
from sqlalchemy.exc import OperationalError

from app.cli import adopt, maintenance, seed, serve
from app.cli.users import Refused, users
from app.config import ConfigurationError
from app.dev import postgres

cli = typer.Typer(
    help="Run and maintain the social-posts API.",
    epilog="Settings are environment variables or lines of .env; README.md lists them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for command in (
    serve.run,
    serve.serve,
    serve.worker,
    serve.openapi,
    seed.seed,
    maintenance.cleanup,
    adopt.adopt,
    maintenance.recount,
    maintenance.doctor,
):
    cli.command()(command)
# Its name in earlier releases, which crontabs may have.
cli.command("gc", hidden=True)(maintenance.cleanup)
cli.add_typer(users, name="user")


def main() -> None:
    """Run the command line. Report errors that the user can fix in one line."""
    try:
        cli()
    except (ConfigurationError, postgres.LocalPostgresError, Refused) as error:
        sys.exit(f"error: {error}")
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        sys.exit(f"error: the database does not answer: {reason}")
