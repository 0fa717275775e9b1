"""Options of the commands that serve.

They set the settings of the same name for this process and its workers.
"""

import os
from typing import Annotated

import typer

from app.config import get_settings

Host = Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port to listen on. Default: PORT.")]


def listen_on(host: str | None, port: int | None) -> None:
    """Let the options, if given, win over the settings."""
    given = {"HOST": host, "PORT": port}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    get_settings.cache_clear()
