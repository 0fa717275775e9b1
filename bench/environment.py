"""Folders of the benchmark, and the clean environment of its child processes."""

import os
import secrets
import sys
from pathlib import Path

from app.config import LOCAL_FOLDER, Settings, get_settings

ROOT = Path(__file__).resolve().parent.parent
WORK = LOCAL_FOLDER / "bench"
PYTHON = sys.executable
HASH_ROUNDS = 12


class BenchError(Exception):
    """The benchmark cannot continue. The message is one line with the remedy."""


def prepare() -> None:
    """Set the settings of this process, which issues the tokens that all contestants accept."""
    WORK.mkdir(parents=True, exist_ok=True)
    Settings.model_config["env_file"] = None
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    os.environ |= {"SECRET_KEY": secrets.token_hex(32), "PASSWORD_HASH_ROUNDS": str(HASH_ROUNDS)}
    get_settings.cache_clear()


def for_children(database_url: str, **more: str) -> dict[str, str]:
    """Return the environment of a contestant, a migration or the seed command."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TERM", "COLUMNS"}}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ENVIRONMENT": "production",
        "LOG_LEVEL": "warning",
        "RATE_LIMITS_ENABLED": "false",
        "SECRET_KEY": os.environ["SECRET_KEY"],
        "PASSWORD_HASH_ROUNDS": str(HASH_ROUNDS),
        "DATABASE_URL": database_url,
        **more,
    }
