"""Maintenance commands: cleanup, recount and doctor."""

from typing import Annotated

import typer

from app.cli.database import database
from app.cli.doctor import examine
from app.cli.migrations import migrated_database
from app.cli.refused import Refused
from app.config import get_settings
from app.database.engines import get_engine
from app.dev import postgres
from app.services import cleanup as cleanup_service
from app.services import deletion
from app.services import recount as recount_service


def cleanup() -> None:
    """Delete expired rows, and the remaining rows of deleted accounts and posts.

    Covers sessions, stored responses, attempt counters, mails, tokens, invites, security events, and tags without posts
    and followers.
    Safe at any time, also concurrently. Servers run it every CLEANUP_INTERVAL_MINUTES.
    """
    with migrated_database():
        for table, removed in cleanup_service.run():
            typer.echo(f"{table}: {removed:,} removed")
        typer.echo(f"deletions: {deletion.work():,} finished")


def recount(
    check: Annotated[
        bool, typer.Option("--check", help="Only report differences; exit with 1 if there are any.")
    ] = False,
) -> None:
    """Compare counts with the rows that they count, and repair wrong ones.

    Safe at any time, also under load.
    """
    with migrated_database():
        wrong = repaired = 0
        for batch in recount_service.recount(is_repairing=not check):
            wrong, repaired = wrong + len(batch.wrong), repaired + batch.repaired
            if batch.wrong:
                typer.echo(f"wrong counts up to {batch.table} {batch.last_id}: {', '.join(map(str, batch.wrong))}")
        typer.echo(f"{wrong:,} wrong, {repaired:,} repaired")
    if check and wrong:
        raise typer.Exit(1)


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Check all counts and rows, not a sample.")] = False,
) -> None:
    """Check configuration, mail, database and backups.

    Of the database: privileges, migrations, indexes, counts and clock.
    Prints a remedy per problem. Exits with 1 if a check fails. Changes nothing, and sends no mail.
    """
    if get_settings().database is None and not postgres.exists():
        raise Refused("no database is configured, and there is no embedded one; set DATABASE_URL, or use: make run")
    with database():
        failures = 0
        for finding in examine(get_engine(), get_settings(), is_full=full):
            typer.echo(str(finding))
            failures += finding.level == "FAIL"
    if failures:
        raise typer.Exit(1)
