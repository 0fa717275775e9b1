"""`python -m app user …`: account management for operators."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.cli.migrations import migrated_database
from app.cli.refused import Refused
from app.config import Role
from app.database.references import broken_constraint
from app.database.sessions import transaction
from app.database.sqlstate import named_by
from app.errors import BROKEN_CONSTRAINTS, DomainError
from app.models import User
from app.schemas.moderation import BanIn
from app.schemas.types import Password
from app.schemas.user import UserIn
from app.security import passwords
from app.services import administration, moderation, user

users = typer.Typer(
    help="Manage accounts: create, promote, disable, ban, reset passwords, end sessions.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="E-mail address or username.")]
Generate = Annotated[bool, typer.Option("--generate", help="Generate a password and print it once.")]


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="E-mail address; compared case-insensitively.")],
    username: Annotated[str | None, typer.Option(help="Username; `user<id>` if omitted.")] = None,
    role: Annotated[Role, typer.Option(help="Role of the account.")] = "user",
    generate: Generate = False,
) -> None:
    """Create an account.

    Prompts for the password, or reads it from the first line of piped standard input.
    """
    password = _password(generate=generate)
    with _transaction() as db:
        account = user.create(db, UserIn(email=email, password=password, username=username))
        administration.set_role(db, account, role)
    typer.echo(f"{account.username} has the id {account.id} and is {_with_article(role)}")
    _show(password, generate=generate)


@users.command()
def promote(name: Name, role: Annotated[Role, typer.Argument(help="New role of the account.")]) -> None:
    """Set the role of an account.

    Moderators see drafts, remove, delete and lock posts, remove and delete comments, and ban users. Admins also manage
    accounts.
    """
    with _account(name) as (db, account):
        administration.set_role(db, account, role)
    typer.echo(f"{account.username} is {_with_article(role)}")


@users.command()
def disable(name: Name) -> None:
    """Disable an account: no sign-in, sessions and API keys revoked. Its posts stay."""
    with _account(name) as (db, account):
        administration.disable(db, account)
    typer.echo(f"{account.username} is disabled and signed out everywhere")


@users.command()
def enable(name: Name) -> None:
    """Enable a disabled account, so that it can sign in again."""
    with _account(name) as (db, account):
        administration.enable(db, account)
    typer.echo(f"{account.username} can sign in")


@users.command()
def ban(
    name: Name,
    reason: Annotated[str, typer.Option(help="The reason, which the user sees.")],
    until: Annotated[str | None, typer.Option(help="End, such as 2027-01-31T12:00:00Z; none if omitted.")] = None,
) -> None:
    """Ban an account: no sign-in until the end, sessions and API keys revoked. Its posts stay."""
    with _account(name) as (db, account):
        state = moderation.ban(db, None, account.id, BanIn.model_validate({"reason": reason, "until": until}))
    end = "" if state.until is None else f" until {state.until:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"{account.username} is banned{end} and signed out everywhere")


@users.command()
def unban(name: Name) -> None:
    """End the ban of an account, so that it can sign in again."""
    with _account(name) as (db, account):
        moderation.unban(db, None, account.id)
    typer.echo(f"{account.username} is not banned")


@users.command()
def reset_password(name: Name, generate: Generate = False) -> None:
    """Set a new password for an account, and revoke its sessions and API keys.

    Prompts for the password, or reads it from the first line of piped standard input.
    """
    password = _password(generate=generate)
    with _account(name) as (db, account):
        TypeAdapter(Password).validate_python(password)
        administration.set_password(db, account, passwords.hash_password(password))
    typer.echo(f"{account.username} has a new password and is signed out everywhere")
    _show(password, generate=generate)


@users.command()
def disable_totp(name: Name) -> None:
    """Remove a lost second factor and its recovery codes.

    First verify that the owner of the account asks for it.

    The password alone then signs in, until the owner sets up a new second factor.
    """
    with _account(name) as (db, account):
        if not administration.disable_totp(db, account):
            raise Refused(f"{account.username} has no second factor")
    typer.echo(f"{account.username} signs in with the password alone")


@users.command()
def sessions(
    name: Name,
    end: Annotated[list[int] | None, typer.Option(metavar="ID", help="Revoke this session. Repeatable.")] = None,
    end_all: Annotated[bool, typer.Option("--end-all", help="Revoke all sessions and API keys.")] = False,
) -> None:
    """List the sessions of an account, or revoke some."""
    with _account(name) as (db, account):
        if not end and not end_all:
            for session in administration.sessions(db, account):
                device = _printable(session.user_agent or "-")
                typer.echo(f"{session.id}  {session.created_at:%Y-%m-%d %H:%M}  {session.address or '-'}  {device}")
            return
        ended = administration.end_sessions(db, account, None if end_all else end)
        if missing := set(end or []) - set(ended.ids):
            raise Refused(f"{account.username} has no session {min(missing)}; nothing was ended")
    typer.echo(f"{len(ended.ids)} ended" if ended.is_complete else "all ended")


@contextmanager
def _transaction() -> Iterator[Session]:
    """Run a transaction on the configured or embedded database.

    Raises `Refused` for errors the operator can fix.
    """
    with migrated_database():
        try:
            with transaction() as db:
                yield db
        except DomainError as error:
            raise Refused(error.detail) from None
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            raise Refused(f"{'.'.join(map(str, problem['loc'])) or 'password'}: {problem['msg']}") from None
        except IntegrityError as error:
            meaning = BROKEN_CONSTRAINTS.get(named_by(error).constraint or "")
            if meaning is None and (foreign := broken_constraint(error)) is not None:
                raise Refused(f"a constraint outside this project's schema forbids it: {foreign}") from None
            if meaning is None:
                raise
            raise Refused(meaning().detail) from None


@contextmanager
def _account(name: str) -> Iterator[tuple[Session, User]]:
    """Find the account by e-mail address or username, in a transaction."""
    with _transaction() as db:
        account = administration.find(db, name)
        if account is None:
            raise Refused(f"no account has the name {name}")
        yield db, account


def _password(*, generate: bool) -> str:
    """Generate or read the password.

    Never an argument: process lists and shell histories would show it.
    """
    if generate:
        return secrets.token_urlsafe(15)
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _show(password: str, *, generate: bool) -> None:
    if generate:
        typer.echo(f"The password is: {password}")


def _printable(text: str) -> str:
    """Replace characters of a client's text that a terminal would interpret."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _with_article(role: Role) -> str:
    return f"an {role}" if role == "admin" else f"a {role}"
