"""Migrations of a command's database.

Importing Alembic is slow, so servers do not import this module.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alembic.config import Config

from alembic import command
from app.cli.database import database
from app.config import ConfigurationError
from app.database import schema_version
from app.database.sessions import writing


@contextmanager
def migrated_database(options: Mapping[str, str] | None = None) -> Iterator[str]:
    """Provide a migrated database as `database` does. Migrate the embedded one only.

    Raises `ConfigurationError` if the configured database is not migrated.
    """
    with database(options) as where:
        if where.startswith("embedded"):
            migrate()
        _require_migrated()
        yield where


def migrate() -> None:
    """Upgrade the database to the newest migration."""
    config = Config(schema_version.ALEMBIC_INI)
    config.attributes["configure_logging"] = False
    command.upgrade(config, "head")


def _require_migrated() -> None:
    with writing() as connection:
        (found,) = schema_version.check(connection, [None])
    if isinstance(found, schema_version.Health) and found.problem:
        raise ConfigurationError(found.problem)
