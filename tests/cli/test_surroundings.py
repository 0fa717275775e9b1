"""What `python -m app doctor` says of mail server, proxies, metrics, keys and backups; and that it changes nothing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from app.cli.surroundings import examine_backups, examine_surroundings
from app.config import Settings, get_settings
from tests.cli.test_commands import app
from tests.conftest import ROOT, _own_database
from tests.fixtures import free_port
from tests.mail_server import MailServer


def findings(**changed: object) -> list[str]:
    settings = get_settings().model_copy(update=changed)
    return [str(finding) for finding in examine_surroundings(settings)]


def mail(server_port: int, **changed: object) -> str:
    there = {"mail_enabled": True, "smtp_host": "127.0.0.1", "smtp_port": server_port, "smtp_tls": "none"}
    (found,) = findings(**{**there, **changed})
    return found


def test_mail_server_that_can_be_used_is_ok_and_gets_no_mail(mail_server: MailServer) -> None:
    where = f"127.0.0.1:{mail_server.port}"
    login = {"smtp_username": "ada", "smtp_password": SecretStr("secret")}

    assert mail(mail_server.port) == f"ok    mail: {where} accepts connections"
    assert mail(mail_server.port, **login) == f"ok    mail: {where} accepts the login"
    assert (mail_server.connection_count, mail_server.received) == (2, [])


def test_mail_server_that_refuses_the_login_or_the_connection_is_a_failure(mail_server: MailServer) -> None:
    mail_server.behaviour = "refuse login"
    wrong = mail(mail_server.port, smtp_username="ada", smtp_password=SecretStr("wrong"))
    nothing = mail(free_port())
    unencrypted = mail(mail_server.port, smtp_tls="starttls")

    assert wrong.startswith("FAIL  mail: ")
    assert "SMTPAuthenticationError (535)" in wrong
    assert "ConnectionRefusedError" in nothing
    assert "SMTPNotSupportedError" in unencrypted
    assert all(found.endswith("; correct the SMTP_… settings") for found in (wrong, nothing, unencrypted))


def test_mail_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.surroundings.MAIL_TIMEOUT_SECONDS", 0.2)
    with MailServer("hang") as server:
        assert "timed out" in mail(server.port)


def test_without_a_mail_server_production_is_warned() -> None:
    (development,) = findings(mail_enabled=True, smtp_host=None)
    production, *_ = findings(mail_enabled=True, smtp_host=None, environment="production")

    assert development.startswith("ok    mail: logged and written")
    assert production.startswith("warn  mail: none is sent, so passwords cannot be reset; set SMTP_HOST")


def test_missing_proxies_and_metrics_token_are_warned_of_in_production() -> None:
    _, proxies, metrics = findings(environment="production")
    assert proxies.startswith("warn  proxies: none is trusted")
    assert metrics.startswith("warn  metrics: METRICS_TOKEN is not set")

    token = SecretStr("x" * 32)
    _, proxies, metrics = findings(environment="production", trusted_proxies=["10.0.0.0/8"], metrics_token=token)
    assert proxies == "ok    proxies: 10.0.0.0/8 may name the client's address"
    assert metrics == "ok    metrics: METRICS_TOKEN is set"


def test_previous_keys_are_mentioned() -> None:
    _, keys = findings(secret_key_previous=[SecretStr("old")])

    assert keys == "ok    secret: 1 previous keys are accepted; remove each 30 days after its replacement"


def backups(database: Engine, settings: Settings) -> list[str]:
    with database.connect() as connection:
        return [str(finding) for finding in examine_backups(connection, settings)]


def test_age_of_the_newest_backup_is_reported(database: Engine, tmp_path: Path) -> None:
    settings = get_settings().model_copy(update={"backup_folder": tmp_path})
    assert backups(database, settings) == [
        f"warn  backups: {tmp_path} has none; run deploy/postgres/backup.sh, and schedule it"
    ]

    for name, hours in (("old.dump", 100), ("new.dump", 25), ("unfinished.dump.partial", 0), ("other.txt", 0)):
        (tmp_path / name).write_text("backup")
        os.utime(tmp_path / name, (time.time() - hours * 3600,) * 2)
    assert backups(database, settings) == [f"ok    backups: the newest in {tmp_path} is from 25.0 hours ago"]

    (tmp_path / "new.dump").write_text("")
    (late,) = backups(database, settings)
    assert late.startswith(f"warn  backups: the newest in {tmp_path} is from 4 days ago; ")

    shutil.rmtree(tmp_path)
    (gone,) = backups(database, settings)
    assert gone.startswith(f"warn  backups: {tmp_path} cannot be read (No such file or directory)")


def test_unknown_backups_are_said_to_be_unknown(database: Engine) -> None:
    (found,) = backups(database, get_settings())

    assert found.startswith("ok    backups: not known here; set BACKUP_FOLDER")


def test_doctor_runs_on_a_database_that_refuses_every_change() -> None:
    with _own_database() as url:
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(text(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on"))

        done = app("doctor", "--full", DATABASE_URL=url.render_as_string(hide_password=False))

    assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_makes_no_database(tmp_path: Path) -> None:
    for name in ("app", "alembic", "alembic.ini", "web"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "SECRET_KEY"}}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = sorted(tmp_path.rglob("*"))

    refused = subprocess.run(
        [sys.executable, "-m", "app", "doctor"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: no database is configured, and there is no embedded one; set DATABASE_URL")
    assert sorted(tmp_path.rglob("*")) == before
