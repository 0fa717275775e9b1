"""Maintenance commands: cleanup, recount and doctor."""

from typing import Annotated

import typer

from app.cli.database import database, migrated_database
from app.config import get_settings


def cleanup() -> None:
    """Delete expired rows, and the remaining rows of deleted accounts and posts.

    Covers sessions, stored responses, attempt counters, vote history, mails, tokens and security events.
    Safe at any time, also concurrently. Servers run it every CLEANUP_INTERVAL_MINUTES.
    """
    with migrated_database():
        from app.services import cleanup as service  # noqa: PLC0415 - reads the settings, which now name the database.
        from app.services import deletion  # noqa: PLC0415

        for table, removed in service.run():
            typer.echo(f"{table}: {removed:,} removed")
        typer.echo(f"deletions: {deletion.work():,} finished")


def recount(
    check: Annotated[
        bool, typer.Option("--check", help="Only report differences; exit with 1 if there are any.")
    ] = False,
) -> None:
    """Compare vote counts with the votes, and repair wrong ones. Safe at any time, also under load."""
    with migrated_database():
        from app.services import recount as service  # noqa: PLC0415 - reads the settings, which now name the database.

        wrong = mended = 0
        for batch in service.recount(is_mending=not check):
            wrong, mended = wrong + len(batch.wrong), mended + batch.mended
            if batch.wrong:
                typer.echo(f"wrong counts up to post {batch.last_id}: {', '.join(map(str, batch.wrong))}")
        typer.echo(f"{wrong:,} wrong, {mended:,} repaired")
    if check and wrong:
        raise typer.Exit(1)


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Check all vote counts and rows, not a sample.")] = False,
) -> None:
    """Check configuration, database, privileges, migrations, indexes, counts and clock. Print a remedy per problem.

    Exits with 1 if a check fails. Changes nothing.
    """
    with database():
        from app.cli import doctor as service  # noqa: PLC0415 - reads the settings, which now name the database.
        from app.database.engines import get_engine  # noqa: PLC0415

        failures = 0
        for finding in service.examine(get_engine(), get_settings(), is_full=full):
            typer.echo(str(finding))
            failures += finding.level == "FAIL"
    if failures:
        raise typer.Exit(1)
