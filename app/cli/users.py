"""`python -m app user …`: an operator's hands on accounts.

What reads the settings is imported where a command runs: their errors are the command's to tell, and by then they name
the embedded database.
"""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError

from app.cli.database import migrated_database
from app.config import Role
from app.errors import BROKEN_CONSTRAINTS, DomainError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.models import User

users = typer.Typer(
    help="Look after accounts: make them, give them roles, keep them out, end their sessions.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The e-mail address, or the username.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and show it, once.")]


class Refused(Exception):
    """What the operator wants cannot be done. The message is one line."""


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="Identifies the account, however it is cased.")],
    username: Annotated[str | None, typer.Option(help="`user<id>` until chosen.")] = None,
    role: Annotated[Role, typer.Option(help="What the account may do.")] = "user",
    generate: Generate = False,
) -> None:
    """Make an account. Its password is asked for; where standard input is no terminal, it is the first line of that."""
    password = _password(generate=generate)
    with _transaction() as db:
        from app.schemas.user import UserIn
        from app.services import administration, user

        account = user.sign_up(db, UserIn(email=email, password=password, username=username))
        administration.set_role(db, account, role)
    typer.echo(f"{account.username} has the id {account.id} and is {_with_article(role)}")
    _show(password, generate=generate)


@users.command()
def promote(name: Name, role: Annotated[Role, typer.Argument(help="What the account may do from now on.")]) -> None:
    """Give an account a role: moderators see drafts and delete posts, admins manage accounts too."""
    with _account(name) as (db, account):
        from app.services import administration

        administration.set_role(db, account, role)
    typer.echo(f"{account.username} is {_with_article(role)}")


@users.command()
def disable(name: Name) -> None:
    """Keep an account from signing in, and end its sessions and API keys. What it wrote stays."""
    with _account(name) as (db, account):
        from app.services import administration

        administration.disable(db, account)
    typer.echo(f"{account.username} is disabled and signed out everywhere")


@users.command()
def enable(name: Name) -> None:
    """Let a disabled account sign in again."""
    with _account(name) as (db, account):
        from app.services import administration

        administration.enable(db, account)
    typer.echo(f"{account.username} can sign in")


@users.command()
def reset_password(name: Name, generate: Generate = False) -> None:
    """Give an account another password, and end its sessions and API keys.

    The password is asked for; where standard input is no terminal, it is the first line of that.
    """
    password = _password(generate=generate)
    with _account(name) as (db, account):
        from app.schemas.types import Password
        from app.security import passwords
        from app.services import administration

        TypeAdapter(Password).validate_python(password)
        administration.set_password(db, account, passwords.hash_password(password))
    typer.echo(f"{account.username} has another password and is signed out everywhere")
    _show(password, generate=generate)


@users.command()
def disable_totp(name: Name) -> None:
    """Take away the second factor of somebody who lost it, with its recovery codes. Make sure first who asks for that.

    From then on the password alone signs in, until they set up another one.
    """
    with _account(name) as (db, account):
        from app.services import administration

        if not administration.disable_totp(db, account):
            raise Refused(f"{account.username} has no second factor")
    typer.echo(f"{account.username} signs in with the password alone")


@users.command()
def sessions(
    name: Name,
    end: Annotated[list[int] | None, typer.Option(metavar="ID", help="End this one; may be given again.")] = None,
    end_all: Annotated[bool, typer.Option("--end-all", help="End them all, API keys too.")] = False,
) -> None:
    """List the sessions of an account, or end some."""
    with _account(name) as (db, account):
        from app.services import administration

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
def _transaction() -> Iterator["Session"]:
    """A transaction on the configured or embedded database. Raises `Refused` for what an operator can mend."""
    with migrated_database():
        from app.database.sessions import transaction
        from app.models.references import broken_constraint

        try:
            with transaction() as db:
                yield db
        except DomainError as error:
            raise Refused(error.detail) from None
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            raise Refused(f"{'.'.join(map(str, problem['loc'])) or 'password'}: {problem['msg']}") from None
        except IntegrityError as error:
            meaning = BROKEN_CONSTRAINTS.get(getattr(getattr(error.orig, "diag", None), "constraint_name", None) or "")
            if meaning is None and (foreign := broken_constraint(error)) is not None:
                raise Refused(f"a constraint that is not of this project forbids it: {foreign}") from None
            if meaning is None:
                raise
            raise Refused(meaning().detail) from None


@contextmanager
def _account(name: str) -> Iterator[tuple["Session", "User"]]:
    """The account of that name, in a transaction."""
    with _transaction() as db:
        from app.services import administration

        account = administration.find(db, name)
        if account is None:
            raise Refused(f"nobody is called {name}")
        yield db, account


def _password(*, generate: bool) -> str:
    """Never an argument: other users of the machine see those, and the shell keeps them."""
    if generate:
        return secrets.token_urlsafe(15)
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _show(password: str, *, generate: bool) -> None:
    if generate:
        typer.echo(f"The password is: {password}")


def _printable(text: str) -> str:
    """What a client sent, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _with_article(role: Role) -> str:
    return f"an {role}" if role == "admin" else f"a {role}"
