"""`python -m app seed`: fill the database with sample users, posts, votes, comments, follows, pictures and reports."""

import secrets
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli import samples
from app.cli.database import go_past_the_pooler
from app.cli.demo import PEOPLE, POSTS, add_demo
from app.cli.migrations import migrated_database
from app.config import ConfigurationError, get_settings
from app.database.engines import get_engine
from app.dev import seed as seeding
from app.errors import DomainError
from app.security import passwords

# Of the embedded server while seeding: fewer checkpoints, so that fewer full pages are written to the WAL.
FOR_FILLING = {"max_wal_size": "4GB", "checkpoint_timeout": "30min", "shared_buffers": "512MB"}

# Each picture is decoded in a process of its own, in about 0.3 s.
MAX_PICTURES_BY_DEFAULT = 24
MAX_REPORTS_BY_DEFAULT = 12


def seed(
    users: Annotated[int, typer.Option(min=0, help="Users to add.")] = 1_000,
    posts: Annotated[int, typer.Option(min=0, help="Posts to add; 3 % are drafts.")] = 10_000,
    votes: Annotated[int, typer.Option(min=0, help="Votes to add; a few posts get most of them.")] = 100_000,
    comments: Annotated[
        int | None, typer.Option(min=0, help="Comments to add, by default three for each post that is added.")
    ] = None,
    follows: Annotated[
        int | None,
        typer.Option(min=0, help="Follows to add; a few users follow very many.", show_default="about 10 per new user"),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=0, max=1_000, help="Pictures to add to posts and profiles.", show_default="24, or fewer"),
    ] = None,
    reports: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100,
            help="Reports to add; with them, a moderator has removed a post, locked one and banned a user.",
            show_default="12, or fewer; none in production",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Random seed; the same seed gives the same data.")] = 1,
    demo: Annotated[
        bool, typer.Option("--demo", help="Add a small site with hand-written texts instead, to show and to try.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow this when ENVIRONMENT is production.")] = False,
) -> None:
    """Add realistic users, posts, votes, comments, follows, pictures and reports. Existing rows stay.

    Without a configured database, this fills the embedded one, which `run` serves. Ctrl-C keeps the rows added so far.
    Pictures are stored in MEDIA_ROOT. With reports, the newest user becomes a moderator.
    """
    is_production = get_settings().environment == "production"
    if is_production and not yes:
        raise ConfigurationError("ENVIRONMENT is production; to add sample data anyway, pass --yes")
    if reports and not users:
        raise ConfigurationError("reports need a moderator, who is one of the new users: pass --users too")
    go_past_the_pooler()
    with migrated_database(FOR_FILLING):
        if demo:
            _show(password=None if is_production else seeding.PASSWORD)
            return
        comments = 3 * posts if comments is None else comments
        follows = min(10 * users, users * (users // 4)) if follows is None else follows
        pictures = min(MAX_PICTURES_BY_DEFAULT, posts // 4) if pictures is None else pictures
        if reports is None:
            reports = 0 if is_production or users < samples.MIN_USERS else min(MAX_REPORTS_BY_DEFAULT, posts // 8)
        wanted = seeding.Amounts(users, posts, votes, comments, follows)
        _seed(wanted, pictures, reports, seed, password=None if is_production else seeding.PASSWORD)


def _show(password: str | None) -> None:
    """Add the site to show. Without a password, its users cannot sign in."""
    try:
        address = add_demo(passwords.hash_password(password or secrets.token_urlsafe(32)))
    except (seeding.CannotSeed, DomainError) as error:
        raise ConfigurationError(str(error)) from None
    typer.echo(f"Added a site with {len(PEOPLE)} authors, {len(POSTS)} posts and their pictures")
    if password is not None:
        typer.echo(f"The password of each user is: {password}")
        typer.echo(f"One of them is: {address} (a moderator)")


def _seed(wanted: seeding.Amounts, pictures: int, reports: int, seed: int, password: str | None) -> None:
    """Fill the database and show the progress.

    Without a password, the new users cannot sign in.
    """
    started_at = time.monotonic()
    added = dict.fromkeys(("people", "posts", "votes", "comments", "follows", "pictures", "reports"), 0)
    moderator = None
    try:
        with _progress() as progress:
            steps = (*seeding.STEPS, "pictures", "reports")
            tasks = {what: progress.add_task(what.capitalize(), total=None, start=False) for what in steps}

            def report(what: str, done: int, total: int) -> None:
                added[what] = done
                progress.start_task(tasks[what])
                progress.update(tasks[what], completed=done, total=total)

            seeding.fill(
                get_engine(),
                wanted,
                seed=seed,
                password_hash=passwords.hash_password(password or secrets.token_urlsafe(32)),
                report=report,
            )
            if pictures:
                samples.add_pictures(pictures, seed, report)
            if reports:
                moderator = samples.add_moderation(reports, seed, report)
    except seeding.CannotSeed as error:
        raise ConfigurationError(str(error)) from None
    finally:
        seconds = time.monotonic() - started_at
        typer.echo(
            f"Added {added['people']:,} users, {added['posts']:,} posts, {added['votes']:,} votes,"
            f" {added['comments']:,} comments, {added['follows']:,} follows, {added['pictures']:,} pictures"
            f" and {added['reports']:,} reports in {seconds:,.1f} seconds"
        )
    if password is not None and added["people"]:
        typer.echo(f"The password of each user is: {password}")
        typer.echo(f"One of them is: {seeding.newest_address(get_engine())}{' (a moderator)' if moderator else ''}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
