"""`python -m app seed`: fill the database with invented people, posts and votes."""

import secrets
import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.database import go_past_the_pooler, migrated_database
from app.config import ConfigurationError, get_settings
from app.dev import seed as seeding

if TYPE_CHECKING:
    from rich.progress import Progress


# For the embedded server while it is filled: fewer checkpoints, so that fewer whole pages are written to the log.
FOR_FILLING = {"max_wal_size": "4GB", "checkpoint_timeout": "30min", "shared_buffers": "512MB"}


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
    from app.database.engines import get_engine  # noqa: PLC0415
    from app.security import passwords  # noqa: PLC0415 - it reads the settings, and their errors are this command's to tell.

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
