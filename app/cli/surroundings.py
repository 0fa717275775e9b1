"""Checks of `python -m app doctor` around the database.

They cover the mail server, proxies, the metrics token, keys, backups and long transactions of other programs.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, text

from app.cli.finding import Finding
from app.config import Settings
from app.mail.smtp import NotSent, Smtp, transport

MAIL_TIMEOUT_SECONDS = 5
# A backup a day, at a random time within an hour, and an hour to take it.
MAX_BACKUP_AGE_SECONDS = 26 * 3600
_ARCHIVER = text("""
    SELECT extract(epoch FROM now() - last_archived_time)::float AS age_seconds,
        coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS is_failing
    FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off'
""")

# Events can be read only after all older transactions that write have ended (`database.event_log`). Activity of other
# roles is hidden from a role without `pg_monitor`, so the delay itself is read from the log.
MAX_EVENT_DELAY_SECONDS = 5
_EVENT_DELAY = text("""
    SELECT extract(epoch FROM clock_timestamp() - created_at)::float AS seconds FROM events
    WHERE transaction_id >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY transaction_id, id LIMIT 1
""")
_LONGEST_TRANSACTION = text("""
    SELECT * FROM (
        SELECT format('process %s (%s, database %s)', pid, coalesce(nullif(application_name, ''), usename), datname)
                AS name,
            format('SELECT pg_terminate_backend(%s)', pid) AS remedy,
            extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL
        UNION ALL
        SELECT format('the prepared transaction %L in database %s', gid, database), format('ROLLBACK PREPARED %L', gid),
            extract(epoch FROM clock_timestamp() - prepared)::float
        FROM pg_prepared_xacts
    ) AS writing ORDER BY seconds DESC LIMIT 1
""")


def examine_surroundings(settings: Settings) -> Iterator[Finding]:
    """Yield the checks that need no database."""
    yield _mail(settings)
    if settings.environment == "production":
        yield _proxies(settings)
        yield _metrics(settings)
    if settings.secret_key_previous:
        what = f"secret: {len(settings.secret_key_previous)} previous keys are accepted"
        yield Finding("ok", what, f"remove each {settings.session_lifetime_days} days after its replacement")


def _mail(settings: Settings) -> Finding:
    """Log in at the mail server. Send nothing."""
    if not settings.mail_enabled:
        return Finding("ok", "mail: MAIL_ENABLED is false here, so mails wait for another process")
    mail = transport(settings)
    if mail is None:
        remedy = "set SMTP_HOST, MAIL_FROM and PUBLIC_URL; mails wait in the database for at most a day"
        return Finding("warn", "mail: none is sent, so passwords cannot be reset", remedy)
    if not isinstance(mail, Smtp):
        return Finding("ok", "mail: logged and written to .local/mail/, for development")
    where = f"{mail.host}:{mail.port}"
    try:
        replace(mail, timeout_seconds=MAIL_TIMEOUT_SECONDS).check()
    except NotSent as error:
        return Finding("FAIL", f"mail: {where} cannot be used: {error}", "correct the SMTP_… settings")
    return Finding("ok", f"mail: {where} accepts " + ("the login" if mail.username else "connections"))


def _proxies(settings: Settings) -> Finding:
    if settings.trusted_proxies:
        return Finding("ok", f"proxies: {', '.join(settings.trusted_proxies)} may name the client's address")
    remedy = "set TRUSTED_PROXIES to the proxy's address"
    return Finding("warn", "proxies: none is trusted, so all clients behind one share one rate limit", remedy)


def _metrics(settings: Settings) -> Finding:
    if settings.metrics_token is not None:
        return Finding("ok", "metrics: METRICS_TOKEN is set")
    remedy = "set METRICS_TOKEN, and give it to Prometheus"
    return Finding("warn", "metrics: METRICS_TOKEN is not set, so they cannot be read", remedy)


def examine_backups(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Yield the age of the newest backup, and the state of WAL archiving.

    Backups are in `BACKUP_FOLDER`.
    """
    archiver = connection.execute(_ARCHIVER).first()
    if archiver is not None:
        yield _archive(archiver.age_seconds, is_failing=archiver.is_failing)
    if settings.backup_folder is not None:
        yield _dumps(settings.backup_folder)
    elif archiver is None:
        remedy = "set BACKUP_FOLDER if they are on this machine, and restore one before you need it"
        yield Finding("ok", "backups: not known here", remedy)


def examine_event_delay(connection: Connection) -> Finding:
    """Check that no open transaction delays the readers of the event log by more than `MAX_EVENT_DELAY_SECONDS`."""
    delay: float = connection.scalar(_EVENT_DELAY) or 0.0
    longest = connection.execute(_LONGEST_TRANSACTION).first()
    if longest is not None and longest.seconds > MAX_EVENT_DELAY_SECONDS:
        what = f"events: delayed by {longest.name}, whose transaction has been open for {longest.seconds:,.0f} s"
        return Finding("warn", what, f"end it as a superuser: {longest.remedy}")
    if delay > MAX_EVENT_DELAY_SECONDS:
        what = f"events: delayed by {delay:,.0f} s, by an open transaction that writes"
        return Finding("warn", what, "find it as a superuser: SELECT * FROM pg_stat_activity ORDER BY xact_start")
    return Finding("ok", "events: no open transaction delays them")


def _archive(age_seconds: float | None, *, is_failing: bool) -> Finding:
    if is_failing:
        return Finding("warn", "backups: archiving the WAL fails", "see the log of PostgreSQL for archive_command")
    if age_seconds is None:
        return Finding("warn", "backups: no WAL is archived yet", "see archive_command and pg_stat_archiver")
    return Finding("ok", f"backups: WAL was last archived {_ago(age_seconds)}")


def _dumps(folder: Path) -> Finding:
    try:
        newest = max((path.stat().st_mtime for path in folder.glob("*.dump") if path.stat().st_size), default=None)
        if newest is None:
            list(folder.iterdir())  # `glob` finds nothing in a folder that is missing or cannot be read.
    except OSError as error:
        return Finding("warn", f"backups: {folder} cannot be read ({error.strerror})", "correct BACKUP_FOLDER")
    if newest is None:
        return Finding("warn", f"backups: {folder} has none", "run deploy/postgres/backup.sh, and schedule it")
    age_seconds = time.time() - newest
    what = f"backups: the newest in {folder} is from {_ago(age_seconds)}"
    if age_seconds > MAX_BACKUP_AGE_SECONDS:
        return Finding("warn", what, "see why the scheduled backup does not run")
    return Finding("ok", what)


def _ago(seconds: float) -> str:
    hours = max(seconds, 0) / 3600
    return f"{hours:.1f} hours ago" if hours < 48 else f"{hours / 24:.0f} days ago"
