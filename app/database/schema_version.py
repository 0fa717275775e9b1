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

    `revision` is None if the database was never migrated. `is_foreign` means that other software, such as the tutorial,
    created its tables.
    """

    revision: str | None
    head: str | None
    is_foreign: bool = False

    @property
    def is_ahead(self) -> bool:
        """Whether a newer release has migrated the database.

        Only revisions of this project are numbered.
        """
        return bool(
            not self.is_foreign
            and self.head
            and self.revision
            and _NUMBERED.fullmatch(self.revision)
            and self.revision > self.head
        )

    @property
    def is_migrated(self) -> bool:
        """Whether this code can use the database.

        It can also do so during an upgrade and after a rollback. The migrations of each release are compatible with the
        code of the release before it (docs/migrations.md).
        """
        return self.revision == self.head or self.is_ahead

    @property
    def problem(self) -> str:
        """Why this code cannot use the database, and the remedy. Empty if it can."""
        if self.is_foreign:
            return (
                "other software made the tables of this database; to take them over with their rows, run: python -m app"
                " adopt"
            )
        if not self.is_migrated:
            return f"the database is at migration {self.revision}, not {self.head}; run: alembic upgrade head"
        return ""


@lru_cache
def revisions() -> frozenset[str]:
    """The migrations in this code, read from the file names.

    Loading Alembic would cost each worker 18 MB.
    """
    names = (_NAME.match(path.name) for path in ALEMBIC_INI.with_name("alembic").glob("versions/*.py"))
    return frozenset(name[1] for name in names if name)


def head() -> str | None:
    """The newest migration in this code."""
    return max(revisions(), default=None)


# Without `post_stats`, which later revisions create.
_HAS_TABLES_OF_OTHERS = text("""
    SELECT bool_or(relname <> 'post_stats') AND NOT bool_or(relname = 'post_stats') FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
        AND relname IN ('posts', 'users', 'votes', 'post', 'user', 'post_stats')
""")


def check(connection: Connection, requests: Sequence[None]) -> list[Health | Exception]:
    """Check the database once and return the result for each request of the batch."""
    revision = None
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    is_ours = revision is not None and revision in revisions()
    is_foreign = not is_ours and bool(connection.scalar(_HAS_TABLES_OF_OTHERS))
    health = Health(revision, head(), is_foreign)
    return [health for _ in requests]
