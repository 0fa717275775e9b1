"""Lint the SQL of every migration with squawk: `python -m tests.migrations.lint`, which `make check` does.

Needs no database: the SQL is what `alembic upgrade <before>:<revision> --sql` prints, in one file for each revision.
`.squawk.toml` lists the rules that do not apply, and why.
"""

import io
import subprocess
import sys
import sysconfig
import tempfile
from itertools import pairwise
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from alembic import command

ROOT = Path(__file__).resolve().parent.parent.parent


def sql_of_each(config: Config) -> dict[str, str]:
    """The SQL of each revision, the oldest first."""
    scripts = ScriptDirectory.from_config(config)
    chain = ["base", *(script.revision for script in scripts.walk_revisions())][:0:-1]
    return {revision: _sql(config, before, revision) for before, revision in pairwise(["base", *chain])}


def _sql(config: Config, before: str, revision: str) -> str:
    config.output_buffer = io.StringIO()
    config.attributes["configure_logging"] = False
    command.upgrade(config, f"{before}:{revision}", sql=True)
    return config.output_buffer.getvalue()


def lint(config: Config, squawk_configuration: Path = ROOT / ".squawk.toml") -> subprocess.CompletedProcess[str]:
    """Run squawk on them. Its exit status is 0 if it finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for revision, sql in sql_of_each(config).items():
            (Path(folder) / f"{revision}.sql").write_text(sql)
        names = sorted(path.name for path in Path(folder).iterdir())
        squawk = Path(sysconfig.get_path("scripts")) / "squawk"
        return subprocess.run(
            [squawk, "--config", squawk_configuration, "--reporter", "gcc", *names],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip


if __name__ == "__main__":
    done = lint(Config(ROOT / "alembic.ini"))
    sys.stderr.write(done.stdout + done.stderr)
    sys.exit(done.returncode)
