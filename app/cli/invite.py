"""`python -m app invite`: create an invite."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.migrations import migrated_database
from app.database.sessions import transaction
from app.schemas.invite import DEFAULT_LIFETIME, MAX_LIFETIME, MAX_USES, InviteIn
from app.services import invite as invites


def invite(
    uses: Annotated[int, typer.Option(min=1, max=MAX_USES, help="Accounts that can sign up with it.")] = 1,
    days: Annotated[
        int, typer.Option(min=1, max=MAX_LIFETIME.days, help="Days until it expires.")
    ] = DEFAULT_LIFETIME.days,
) -> None:
    """Create an invite, with which people can sign up while REGISTRATION=invite.

    Prints its token, which clients send as `invite` of POST /users.
    """
    # One minute less, because the latest time is checked against the clock again.
    expires_at = datetime.now(UTC) + timedelta(days=days, minutes=-1)
    with migrated_database(), transaction() as db:
        made, token = invites.issue(db, InviteIn(max_uses=uses, expires_at=expires_at))
        typer.echo(f"The invite is: {token}")
        accounts = "1 account" if made.max_uses == 1 else f"{made.max_uses} accounts"
        typer.echo(f"It is valid for {accounts}, until {made.expires_at:%Y-%m-%d %H:%M} UTC")
