"""What an operator runs from time to time: remove what has expired, recount, check."""

from typing import Annotated

import typer

from app.cli.database import database, migrated_database
from app.config import get_settings


def cleanup() -> None:
    """Remove expired rows: sessions, stored responses, attempt counters, vote history, mails, tokens, security events.

    Also removes what is left of deleted accounts and posts, and of sessions that have ended. Safe at any time, also
    twice at once. The servers do it themselves, every CLEANUP_INTERVAL_MINUTES.
    """
    with migrated_database():
        from app.services import cleanup as service  # noqa: PLC0415
        from app.services import deletion  # noqa: PLC0415 - it reads the settings, which now name the database.

        for table, removed in service.run():
            typer.echo(f"{table}: {removed:,} removed")
        typer.echo(f"deletions: {deletion.work():,} finished")


def recount(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit code 1 if anything does.")
    ] = False,
) -> None:
    """Compare the counts of votes with the votes, and mend those that differ. Safe at any time, also under load."""
    with migrated_database():
        from app.services import recount as service  # noqa: PLC0415 - it reads the settings, which now name the database.

        wrong = mended = 0
        for batch in service.recount(is_mending=not check):
            wrong, mended = wrong + len(batch.wrong), mended + batch.mended
            if batch.wrong:
                typer.echo(f"wrong counts up to post {batch.last_id}: {', '.join(map(str, batch.wrong))}")
        typer.echo(f"{wrong:,} wrong, {mended:,} mended")
    if check and wrong:
        raise typer.Exit(1)


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Compare every count with its votes, not a sample.")] = False,
) -> None:
    """Check configuration, database, rights, migrations, indexes, counts and clock, and say how to mend what is wrong.

    Exit code 1 if something must be mended. Changes nothing.
    """
    with database():
        from app.cli import doctor as service  # noqa: PLC0415 - it reads the settings, which now name the database.
        from app.database.engines import get_engine  # noqa: PLC0415

        failures = 0
        for finding in service.examine(get_engine(), get_settings(), is_full=full):
            typer.echo(str(finding))
            failures += finding.level == "FAIL"
    if failures:
        raise typer.Exit(1)
