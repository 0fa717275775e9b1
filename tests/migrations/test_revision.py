"""`make revision`: what a new migration begins with."""

import re
import shutil
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from app.dev.revision import create_revision
from tests.conftest import ROOT


def test_new_migration_has_the_next_number_and_a_header_that_agrees_with_its_variables(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    config = Config(tmp_path / "alembic.ini")
    newest = ScriptDirectory.from_config(config).get_current_head()
    assert newest is not None

    created = [create_revision("Create comments.", config), create_revision("Index comments.", config)]

    for number, (path, title) in enumerate(zip(created, ("Create comments", "Index comments"), strict=True), 1):
        before, revision = f"{int(newest) + number - 1:04}", f"{int(newest) + number:04}"
        name = f"{title.lower().replace(' ', '_')}.py"
        assert re.fullmatch(rf"\d{{4}}_\d\d_\d\d_{revision}_{name}", path.name)
        text = path.read_text()
        assert text.startswith(f'"""{title}.\n\nRevision ID: {revision}\nRevises: {before}\n"""\n')
        script = ScriptDirectory.from_config(config).get_revision(revision)
        assert (script.revision, script.down_revision) == (revision, before)
    assert ScriptDirectory.from_config(config).get_heads() == [f"{int(newest) + 2:04}"]
