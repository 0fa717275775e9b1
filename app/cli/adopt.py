"""`python -m app adopt`: take over a database of the FastAPI tutorial."""

import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from app import adoption
from app.cli.database import go_past_the_pooler, require_utf8
from app.config import ConfigurationError, get_settings
from app.database.engines import get_engine


def adopt(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run every step, then roll back. Locks the tables as long as a real run.")
    ] = False,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=MEANING",
            help="Meaning of a table or column: accounts=users, notes=comments, posts.writer=owner_id,"
            " users.blocked=inactive, or comments=ignore, for example. Repeatable.",
        ),
    ] = None,
    on_delete: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE.COLUMN=ACTION",
            help="What happens to rows of your own tables when the post or account they refer to is deleted:"
            " cascade deletes them, set-null clears the column. Repeatable.",
        ),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Time zone of columns stored without one.")] = "UTC",
) -> None:
    """Take over a database of the FastAPI tutorial, or of an application based on it.

    Converts in place and drops nothing. Prints what it finds and each step.
    All steps run in one transaction, so a failure changes nothing. A second run changes nothing.
    Stop the old server and make a backup first.
    """
    go_past_the_pooler()
    url = get_settings().database
    if url is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL")
    require_utf8(url, get_settings().database_connect_timeout_seconds)
    try:
        choices = adoption.Choices.parse(maps or [], on_delete or [])
    except adoption.MalformedChoice as error:
        raise ConfigurationError(str(error)) from None
    plan = adoption.look(get_engine(), choices, time_zone)
    _show("Found", plan.found)
    _show("To be taken over, besides users, posts and votes", [each.what for each in plan.takeovers])
    _show("Note", plan.notes)
    _show("Cannot be adopted", plan.refusals)
    if plan.refusals:
        given = [f"--map {shlex.quote(each)}" for each in maps or []]
        given += [f"--on-delete {shlex.quote(each)}" for each in on_delete or []]
        given += [f"--time-zone {shlex.quote(time_zone)}"] if time_zone != "UTC" else []
        command = " ".join(["python -m app adopt --dry-run", *given])
        typer.echo(f"Nothing was changed. Fix these, or add the options named above, and run: {command}")
        raise typer.Exit(1)
    if plan.is_adopted and (plan.is_current or dry_run):
        left = "nothing to do" if plan.is_current else "a real run would only migrate to the newest revision"
        typer.echo(f"Already adopted; {left}.")
        return
    if dry_run:
        _show("Steps, in this order", [*(what for what, _ in plan.steps), "migrate to the newest revision"])
    started_at = time.monotonic()
    if plan.is_adopted:
        typer.echo("Already adopted; migrating to the newest revision")
    else:
        typer.echo("Running every step; all are rolled back at the end" if dry_run else "Running")
    try:
        adoption.adopt(
            url,
            lambda what: typer.echo(f"  {time.monotonic() - started_at:6,.1f} s  {what}"),
            tokens_live=get_settings().access_token_lifetime,
            choices=choices,
            time_zone=time_zone,
            is_dry_run=dry_run,
        )
    except adoption.CannotAdopt as error:
        raise ConfigurationError(str(error)) from None
    if dry_run:
        typer.echo("The database can be adopted; nothing was changed")
    else:
        typer.echo("Adopted: start the server with python -m app serve")


def _show(heading: str, lines: Sequence[str]) -> None:
    if lines:
        typer.echo("\n".join([heading, *(f"  - {line}" for line in lines)]))
