"""squawk finds nothing in the migrations, would find what blocks a live system, and overlooks nothing needlessly."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from alembic.config import Config

from tests.migrations.conftest import ROOT, revisions
from tests.migrations.lint import lint, sql_of_each

CONFIGURATION = tomllib.loads((ROOT / ".squawk.toml").read_text())
BAD = '''"""Block all writers."""

from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("{statement}")
'''


@pytest.fixture
def copied(tmp_path: Path) -> Config:
    """Alembic on a copy of the migrations, to which others can be added."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    return Config(tmp_path / "alembic.ini")


def add(config: Config, statement: str) -> None:
    source = BAD.format(head=revisions()[-1], statement=statement)
    (Path(str(config.config_file_name)).parent / "alembic" / "versions" / "9999_bad.py").write_text(source)


def test_squawk_finds_nothing_in_the_existing_migrations() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.migrations.lint"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_every_revision_is_linted() -> None:
    sql = sql_of_each(Config(ROOT / "alembic.ini"))

    assert list(sql) == revisions()
    assert [revision for revision, text in sql.items() if f"'{revision}'" not in text] == []


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("CREATE INDEX posts_title_idx ON posts (title)", "require-concurrent-index-creation"),
        ("DROP INDEX posts_search_idx", "require-concurrent-index-deletion"),
        ("ALTER TABLE posts ALTER COLUMN title SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE posts ADD CONSTRAINT posts_title_check CHECK (title <> '')", "constraint-missing-not-valid"),
        ("ALTER TABLE posts ALTER COLUMN version TYPE bigint", "changing-column-type"),
        ("ALTER TABLE posts RENAME COLUMN title TO heading", "renaming-column"),
        ("ALTER TABLE posts DROP COLUMN title", "ban-drop-column"),
        ("ALTER TABLE posts ADD COLUMN drawn float NOT NULL DEFAULT random()", "adding-field-with-default"),
    ],
)
def test_a_migration_that_blocks_a_live_system_is_found(copied: Config, statement: str, rule: str) -> None:
    add(copied, statement)

    done = lint(copied)

    assert done.returncode == 1
    assert rule in done.stdout
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {"9999.sql"}


def test_every_exception_from_the_rules_is_needed(tmp_path: Path) -> None:
    everything = tmp_path / "squawk.toml"
    everything.write_text(f'pg_version = "{CONFIGURATION["pg_version"]}"\n')

    found = lint(Config(ROOT / "alembic.ini"), everything).stdout

    for what in (*CONFIGURATION["excluded_rules"], *CONFIGURATION["excluded_paths"]):
        assert what in found, f"{what} need not be excluded any more"
