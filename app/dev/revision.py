"""`make revision`: begin a migration with the next number.

It runs `python -m app.dev.revision "Add comments"`.
"""

import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from alembic import command
from app.database import schema_version


def create_revision(message: str, config: Config | None = None) -> Path:
    """Create an empty migration after the newest one, and return its path.

    The message is the first line of its header. File name and header follow from the number, which a test compares.
    """
    config = config or Config(schema_version.ALEMBIC_INI)
    newest = ScriptDirectory.from_config(config).get_current_head()
    created = command.revision(config, message, rev_id=f"{int(newest or 0) + 1:04}")
    if created is None or isinstance(created, list):
        raise RuntimeError("Alembic made no single revision")
    return Path(created.path)


if __name__ == "__main__":
    # The title of a migration is a sentence, as in the others.
    create_revision(f"{' '.join(sys.argv[1:]).rstrip('.')}.")
