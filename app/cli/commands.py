"""Entry point of `python -m app …`, with the commands in the order of `--help`."""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from sqlalchemy.exc import OperationalError
from typer.core import TyperGroup
from typer.main import get_command, get_group

from app import __version__
from app.cli.refused import Refused
from app.config import ConfigurationError, explain
from app.dev import postgres

# Where each command is, and its line in the overview: the first paragraph of its own help.
COMMANDS = {
    "run": (
        "app.cli.run:run",
        "Migrate and serve, for development.",
    ),
    "serve": (
        "app.cli.serve:serve",
        "Serve with WORKERS processes.",
    ),
    "worker": (
        "app.cli.worker:worker",
        "Send mails and delete expired rows, without serving requests.",
    ),
    "completion": (
        "app.cli.completion:completion",
        "Print shell code that completes `python -m app` in bash and zsh.",
    ),
    "openapi": ("app.cli.openapi:openapi", "Print the OpenAPI document."),
    "postman": ("app.cli.postman:postman", "Print a Postman collection that logs in and carries the token."),
    "seed": (
        "app.cli.seed:seed",
        "Add realistic users, posts, votes, comments, follows, pictures and reports. Existing rows stay.",
    ),
    "cleanup": (
        "app.cli.maintenance:cleanup",
        "Delete expired rows, and the remaining rows of deleted accounts and posts.",
    ),
    "adopt": (
        "app.cli.adopt:adopt",
        "Take over a database of the FastAPI tutorial, or of an application based on it.",
    ),
    "recount": (
        "app.cli.maintenance:recount",
        "Compare counts with the rows that they count, and repair wrong ones.",
    ),
    "doctor": (
        "app.cli.maintenance:doctor",
        "Check configuration, mail, database and backups.",
    ),
    # Its name in earlier releases, which crontabs may have.
    "gc": ("app.cli.maintenance:cleanup", ""),
    "invite": ("app.cli.invite:invite", "Create an invite, with which people can sign up while REGISTRATION=invite."),
    "user": (
        "app.cli.users:users",
        "Manage accounts: create, promote, disable, ban, reset passwords, end sessions.",
    ),
}
HIDDEN = {"gc"}


class Commands(TyperGroup):
    """Group of commands that imports a command's module only to run it.

    Importing all of them doubles the time of each start.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # Typer does not export the types of Click.
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder and load(str(name)), rest


def load(name: str) -> Any:
    """Import a command or group of commands."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    loaded = getattr(import_module(module), attribute)
    if isinstance(loaded, typer.Typer):
        return get_group(loaded)
    command = typer.Typer(add_completion=False)
    command.command(name)(loaded)
    return get_command(command)


cli = typer.Typer(
    cls=Commands,
    help="Run and maintain the social-posts API.",
    epilog="Settings are environment variables or lines of .env; docs/configuration.md lists them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


def _placeholder() -> None:
    """Stand for a command in the overview."""


for _name, (_, _summary) in COMMANDS.items():
    cli.command(_name, help=_summary, hidden=_name in HIDDEN)(_placeholder)


def main() -> None:
    """Run the command line. Report errors that the user can fix in one line."""
    try:
        cli()
    except ConfigurationError as error:
        sys.exit(explain(error))
    except (postgres.LocalPostgresError, Refused) as error:
        sys.exit(f"error: {error}")
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        sys.exit(f"error: the database does not answer: {reason}")
