"""Whether the database is reachable and migrated to what this code was written for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, text

_NUMBERED = re.compile(r"[0-9]{4}")
_NAME = re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}_([0-9]{4})_")
ALEMBIC_INI = Path(__file__).resolve().parent.parent.parent / "alembic.ini"


@dataclass(frozen=True, slots=True)
class Health:
    """The revision that the database is at (None: never migrated), and the one this code needs."""

    revision: str | None
    head: str | None

    @property
    def is_ahead(self) -> bool:
        """Whether a newer release has migrated it. Our revisions are numbered; those of anybody else are not."""
        return bool(self.head and self.revision and _NUMBERED.fullmatch(self.revision) and self.revision > self.head)

    @property
    def is_migrated(self) -> bool:
        """Whether this code can use it: also while the next release takes over from it, and after a rollback.

        What the next release's migrations do, the release before it can live with (docs/migrations.md).
        """
        return self.revision == self.head or self.is_ahead


@lru_cache
def head() -> str | None:
    """The newest migration that ships with this code, by the files' names: Alembic would cost each worker 18 MB."""
    names = (_NAME.match(path.name) for path in ALEMBIC_INI.with_name("alembic").glob("versions/*.py"))
    return max((name[1] for name in names if name), default=None)


def check(connection: Connection, askers: Sequence[None]) -> list[Health | Exception]:
    """The same answer for everyone who asks at the moment."""
    revision = None
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    health = Health(revision, head())
    return [health for _ in askers]
