"""The schema version of the database, and the version that this code needs."""

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
    """The revision of the database, and the one that this code needs.

    `revision` is None if the database was never migrated.
    """

    revision: str | None
    head: str | None

    @property
    def is_ahead(self) -> bool:
        """Whether a newer release has migrated the database.

        Only revisions of this project are numbered.
        """
        return bool(self.head and self.revision and _NUMBERED.fullmatch(self.revision) and self.revision > self.head)

    @property
    def is_migrated(self) -> bool:
        """Whether this code can use the database.

        It can also do so during an upgrade and after a rollback. The migrations of each release are compatible with the
        code of the release before it (docs/migrations.md).
        """
        return self.revision == self.head or self.is_ahead


@lru_cache
def head() -> str | None:
    """The newest migration in this code, read from the file names.

    Loading Alembic would cost each worker 18 MB.
    """
    names = (_NAME.match(path.name) for path in ALEMBIC_INI.with_name("alembic").glob("versions/*.py"))
    return max((name[1] for name in names if name), default=None)


def check(connection: Connection, requests: Sequence[None]) -> list[Health | Exception]:
    """Check the database once and return the result for each request of the batch."""
    revision = None
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    health = Health(revision, head())
    return [health for _ in requests]
