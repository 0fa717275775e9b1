"""`python -m app …`: running the server, and what an operator does beside it."""

import json
import logging
import logging.config
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import OperationalError

from app import local_postgres, logs, seeding, serving
from app.config import ConfigurationError, get_settings
from app.migrated import database, go_past_the_pooler, migrate, migrated_database, require_utf8
from app.user_cli import Refused, users

if TYPE_CHECKING:
    from rich.progress import Progress

# For the embedded server while it is filled: fewer checkpoints, so that fewer whole pages are written to the log.
FOR_FILLING = {"max_wal_size": "4GB", "checkpoint_timeout": "30min", "shared_buffers": "512MB"}

cli = typer.Typer(
    help="The social-posts API: a server, and the tools to look after it.",
    epilog="Settings are environment variables or lines of .env; README.md has the list.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli.add_typer(users, name="user")


def main() -> None:
    """Run the command line; whatever the user can mend is said in one line."""
    try:
        cli()
    except (ConfigurationError, local_postgres.LocalPostgresError, Refused) as error:
        sys.exit(f"error: {error}")
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        sys.exit(f"error: the database does not answer: {reason}")


@cli.command()
def run() -> None:
    """Serve for development: start the embedded PostgreSQL if no database is configured, migrate, serve.

    HOST and PORT say where (127.0.0.1:8000; PORT=0 takes a free port). Ctrl-C stops it; the data stay in .local/.
    """
    with serving.listening() as listener, database() as where:
        migrate()

        def announce(address: str, _problem: str | None) -> None:
            typer.echo(f"Database  {where}")
            typer.echo(f"Serving   {address}   (Ctrl-C stops it)")
            typer.echo(f"Try       {address}/docs   or   curl {address}/")

        serving.serve(listener, announce)


@cli.command()
def serve() -> None:
    """Serve, with WORKERS processes. The database must be configured and migrated (alembic upgrade head).

    It starts also while the database cannot be used, and GET /readyz then says why. SIGTERM ends it gracefully.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or use: python -m app run")
    require_utf8(settings.database, settings.database_connect_timeout_seconds)

    def announce(address: str, problem: str | None) -> None:
        logger = logging.getLogger("app")
        logger.info("serving on %s", address)
        if settings.environment == "production" and settings.tutorial_defaults:
            # Allowed, because the operator chose it. Logged, because a .env of a test may end up in production.
            logger.warning(
                "TUTORIAL_DEFAULTS=true in production: the defaults accept short and common passwords, and show e-mail"
                " addresses to everyone; tokens that name no session are accepted, so SECRET_KEY alone opens accounts"
            )
        if problem is not None:
            logger.warning("not ready: %s", problem)

    with serving.listening() as listener:
        serving.serve(listener, announce)


@cli.command()
def worker() -> None:
    """Send mails and remove what has expired, without serving. The database must be configured and migrated.

    For servers that leave it to others: they have MAIL_ENABLED=false and GC_INTERVAL_MINUTES=0. Any number may run.
    SIGTERM ends it gracefully.
    """
    settings = get_settings()
    if settings.database is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL")
    require_utf8(settings.database, settings.database_connect_timeout_seconds)
    from app import chores  # noqa: PLC0415 - it reads the settings, and their errors are this command's to tell.

    logging.config.dictConfig(logs.config(settings))
    chores.do_until_told_to_stop()


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import app  # noqa: PLC0415 - building the application is this command's work, not every command's.

    typer.echo(json.dumps(app.openapi(), indent=2, ensure_ascii=False))


@cli.command()
def seed(
    users: Annotated[int, typer.Option(min=0, help="People to add.")] = 1_000,
    posts: Annotated[int, typer.Option(min=0, help="Posts to add; three of a hundred are drafts.")] = 10_000,
    votes: Annotated[int, typer.Option(min=0, help="Votes to add; few posts get most of them.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="The same number draws the same data.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Also where ENVIRONMENT is production.")] = False,
) -> None:
    """Fill the database with believable people, posts and votes; it adds to what is there.

    Without a configured database it fills the embedded one, which `run` serves. Ctrl-C keeps what is there by then.
    """
    is_production = get_settings().environment == "production"
    if is_production and not yes:
        raise ConfigurationError("ENVIRONMENT is production; to fill it with invented people all the same, add --yes")
    go_past_the_pooler()
    with migrated_database(FOR_FILLING):
        _seed(users, posts, votes, seed, password=None if is_production else seeding.PASSWORD)


def _seed(users: int, posts: int, votes: int, seed: int, password: str | None) -> None:
    """Fill the database, showing how far it is; without a password nobody can sign in as these people."""
    from app import passwords  # noqa: PLC0415 - it reads the settings, and their errors are this command's to tell.
    from app.database import get_engine  # noqa: PLC0415

    started_at = time.monotonic()
    added = dict.fromkeys(("people", "posts", "votes"), 0)
    try:
        with _progress() as progress:
            tasks = {what: progress.add_task(what.capitalize(), total=None, start=False) for what in seeding.STEPS}

            def report(what: str, done: int, total: int) -> None:
                added[what] = done
                progress.start_task(tasks[what])
                progress.update(tasks[what], completed=done, total=total)

            seeding.fill(
                get_engine(),
                seeding.Amounts(users, posts, votes),
                seed=seed,
                password_hash=passwords.hash_password(password or secrets.token_urlsafe(32)),
                report=report,
            )
    except seeding.CannotSeed as error:
        raise ConfigurationError(str(error)) from None
    finally:
        seconds = time.monotonic() - started_at
        typer.echo(
            f"Added {added['people']:,} users, {added['posts']:,} posts and {added['votes']:,} votes"
            f" in {seconds:,.1f} seconds"
        )
    if password is not None and added["people"]:
        typer.echo(f"Everybody's password is: {password}")
        typer.echo(f"One of them is: {seeding.somebody(get_engine())}")


def _progress() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 - a server never shows a progress bar.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )


@cli.command()
def gc() -> None:
    """Remove what has expired: sessions, answers, allowances, history of votes, mails, tokens, security events.

    Also what is left of deleted accounts and posts, and of sessions that have ended.
    Safe at any time, also twice at once. The servers do it by themselves, every GC_INTERVAL_MINUTES.
    """
    with migrated_database():
        from app.services import deletion  # noqa: PLC0415 - it reads the settings, which now name the database.
        from app.services import gc as service  # noqa: PLC0415

        for table, removed in service.collect():
            typer.echo(f"{table}: {removed:,} removed")
        typer.echo(f"deletions: {deletion.work():,} finished")


@cli.command()
def adopt(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything, then roll it back. Locks the tables as long as a run.")
    ] = False,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=MEANING",
            help="What a table or column is, such as accounts=users, posts.writer=owner_id, users.blocked=inactive,"
            " or ignore. May be given again.",
        ),
    ] = None,
    on_delete: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE.COLUMN=ACTION",
            help="Have rows of a table of yours that refer to a post or account go along with it (cascade) or forget"
            " it (set-null). May be given again.",
        ),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Of times that were kept without one.")] = "UTC",
) -> None:
    """Take over a database that the FastAPI tutorial, or a descendant of it, made: in place, and dropping nothing.

    Says what it found and what it does, in one transaction: if anything fails, nothing is changed. Stop the old server
    and make a backup first. Run again after the end, it changes nothing.
    """
    go_past_the_pooler()
    url = get_settings().database
    if url is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL")
    require_utf8(url, get_settings().database_connect_timeout_seconds)
    from app import adoption  # noqa: PLC0415 - it reads the settings, and their errors are this command's to tell.
    from app.database import get_engine  # noqa: PLC0415

    try:
        choices = adoption.Choices.parse(maps or [], on_delete or [])
    except adoption.MalformedChoice as error:
        raise ConfigurationError(str(error)) from None
    plan = adoption.look(get_engine(), choices, time_zone)
    _show("Found", plan.found)
    _show("Note", plan.notes)
    _show("Cannot be adopted", plan.refusals)
    if plan.refusals:
        given = [f"--map {shlex.quote(each)}" for each in maps or []]
        given += [f"--on-delete {shlex.quote(each)}" for each in on_delete or []]
        given += [f"--time-zone {shlex.quote(time_zone)}"] if time_zone != "UTC" else []
        command = " ".join(["python -m app adopt --dry-run", *given])
        typer.echo(f"Nothing was changed. Mend these, or add the options that are named, and run: {command}")
        raise typer.Exit(1)
    if plan.is_adopted and (plan.is_current or dry_run):
        left = "nothing to do" if plan.is_current else "a run would only migrate to the newest revision"
        typer.echo(f"Already adopted; {left}.")
        return
    if dry_run:
        _show("To do, in this order", [*(what for what, _ in plan.steps), "migrate to the newest revision"])
    started_at = time.monotonic()
    if plan.is_adopted:
        typer.echo("Already adopted; migrating to the newest revision")
    else:
        typer.echo("Trying everything; it is rolled back at the end" if dry_run else "Doing")
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
        typer.echo("It can be adopted; nothing was changed")
    else:
        typer.echo("Adopted: start the server with python -m app serve")


def _show(heading: str, lines: Sequence[str]) -> None:
    if lines:
        typer.echo("\n".join([heading, *(f"  - {line}" for line in lines)]))


@cli.command()
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


@cli.command()
def doctor(
    full: Annotated[bool, typer.Option("--full", help="Compare every count with its votes, not a sample.")] = False,
) -> None:
    """Check configuration, database, rights, migrations, indexes, counts and clock, and say how to mend what is wrong.

    Exit code 1 if something must be mended. Changes nothing.
    """
    with database():
        from app import doctor as service  # noqa: PLC0415 - it reads the settings, which now name the database.
        from app.database import get_engine  # noqa: PLC0415

        failures = 0
        for finding in service.examine(get_engine(), get_settings(), is_full=full):
            typer.echo(str(finding))
            failures += finding.level == "FAIL"
    if failures:
        raise typer.Exit(1)
