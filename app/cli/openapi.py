"""`python -m app openapi`: print the OpenAPI document."""

import json

import typer


def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import app  # noqa: PLC0415 - importing it builds the application, also for --help.

    typer.echo(json.dumps(app.api.openapi(), indent=2, ensure_ascii=False))
