"""Looking whether everything that this program counts on is so: `python -m app doctor`. Changes nothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine, Index, PrimaryKeyConstraint, UniqueConstraint, text

from app.config import Settings
from app.database import LANE_CONNECTION_COUNT, OTHER_CONNECTION_COUNT
from app.models import Base
from app.services import health, recount

Level = Literal["ok", "warn", "FAIL"]

OLDEST_SERVER = 150_000
SAMPLED_POSTS = 2_000
# Tokens end by this machine's clock, sessions by the database's.
WORRYING_SECONDS = 2.0
WRONG_SECONDS = 30.0
# They keep names and counts right, whoever writes.
TRIGGERS = (
    "users_name", "posts_stats_begin", "posts_stats_follow",
    "votes_count_insert", "votes_count_delete", "votes_count_update", "votes_count_truncate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and, where it is not well, how to mend it."""

    level: Level
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what}" + (f"; {self.mend}" if self.mend else "")


def examine(engine: Engine, settings: Settings, *, is_full: bool) -> Iterator[Finding]:
    """Look at everything, and say each as it is found. `is_full` counts every vote, not a sample."""
    yield from _configuration(settings)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield from _server(connection)
        yield _role(connection, settings)
        yield _clock(connection)
        yield _connections(connection, settings)
        migrations = _migrations(connection)
        yield migrations
        if migrations.level == "FAIL":
            return  # What follows would only say so again.
        yield _rights(connection)
        yield from _indexes(connection)
        yield _triggers(connection)
        yield _counts(connection, is_full=is_full)


def _configuration(settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", f"configuration: it can be used, as {settings.environment}")
    if settings.secret_key is None:
        yield Finding("warn", "secret: made for development, and kept in .local/", "set SECRET_KEY to deploy")
    if settings.environment == "production" and settings.cors_origins is None:
        yield Finding("warn", "browsers: no page may call the API", "set CORS_ORIGINS, if one is to")


def _server(connection: Connection) -> Iterator[Finding]:
    number, version = connection.execute(
        text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
    ).one()
    if number < OLDEST_SERVER:
        yield Finding("FAIL", f"PostgreSQL {version}", "upgrade it to 15 or newer")
    else:
        yield Finding("ok", f"PostgreSQL {version}")
    if connection.scalar(
        text("SELECT current_setting('fsync') = 'off' OR current_setting('full_page_writes') = 'off'")
    ):
        yield Finding("warn", "durability: fsync or full_page_writes is off", "turn both on, or a crash loses the data")


def _role(connection: Connection, settings: Settings) -> Finding:
    name, is_superuser = connection.execute(
        text("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
    ).one()
    if not is_superuser:
        return Finding("ok", f"role {name}: no superuser")
    return Finding(
        "FAIL" if settings.environment == "production" else "warn",
        f"role {name}: a superuser, who may do anything on the server",
        "connect as a role that owns nothing and may read and write the tables",
    )


def _rights(connection: Connection) -> Finding:
    missing = connection.scalars(
        text("""
            SELECT lower(privilege) || ' on ' || name
            FROM unnest(CAST(:tables AS text[])) AS name,
                unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
            WHERE NOT has_table_privilege(name, privilege) ORDER BY 1
        """),
        {"tables": sorted(Base.metadata.tables)},
    ).all()
    if missing:
        return Finding("FAIL", f"rights: may not {', '.join(missing)}", "GRANT it to the role")
    return Finding("ok", "rights: may read and write every table")


def _clock(connection: Connection) -> Finding:
    before = time.time()
    there = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    after = time.time()
    # Anything between the question and the answer may be right.
    seconds = max(before - there, there - after, 0.0)
    level: Level = "ok" if seconds < WORRYING_SECONDS else "warn" if seconds < WRONG_SECONDS else "FAIL"
    mend = "" if level == "ok" else "run a time service (chrony, systemd-timesyncd) on both machines"
    return Finding(level, f"clock: {seconds:.1f} s between this machine and the database", mend)


def _connections(connection: Connection, settings: Settings) -> Finding:
    each = settings.database_pool_size + OTHER_CONNECTION_COUNT + LANE_CONNECTION_COUNT
    wanted = each * settings.worker_count
    allowed, others = connection.execute(
        text("""
            SELECT least(
                    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
                    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
                    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
                ),
                (SELECT count(*) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND application_name <> 'social-posts')
        """)
    ).one()
    what = (
        f"connections: {settings.worker_count} workers may open {wanted} ({each} each);"
        f" the server allows {allowed}, of which others use {others}"
    )
    # Behind a pooler there may be more of ours than of the server's: that is what it is for.
    if wanted <= allowed - others or settings.database_behind_pooler:
        return Finding("ok", what)
    mend = "lower DATABASE_POOL_SIZE or WORKERS, raise max_connections, or put PgBouncer in between"
    return Finding("FAIL" if wanted > allowed else "warn", what, mend)


def _migrations(connection: Connection) -> Finding:
    (found,) = health.check(connection, [None])
    if isinstance(found, Exception):
        raise found
    if found.is_ahead:
        what = f"migrations: at {found.revision}, newer than {found.head}, which this code was written for"
        return Finding("warn", what, "deploy the newer release, if it is not on its way")
    if found.is_migrated:
        return Finding("ok", f"migrations: at {found.revision}, the newest")
    mend = "run: alembic upgrade head (or, for a database of the tutorial: python -m app adopt)"
    return Finding("FAIL", f"migrations: at {found.revision or 'none'}, not {found.head}", mend)


def _indexes(connection: Connection) -> Iterator[Finding]:
    wanted = {
        str(named.name)
        for table in Base.metadata.tables.values()
        for named in (*table.indexes, *table.constraints)
        if isinstance(named, (Index, PrimaryKeyConstraint, UniqueConstraint))
    }
    valid: dict[str, bool] = {
        row.name: row.is_valid
        for row in connection.execute(
            text("""
                SELECT relname AS name, indisvalid AND indisready AS is_valid FROM pg_index
                JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = current_schema()::regnamespace
            """)
        )
    }
    if missing := sorted(wanted - valid.keys()):
        yield Finding("FAIL", f"indexes: {', '.join(missing)} missing", "create them as alembic/versions/ does")
    if invalid := sorted(name for name, is_valid in valid.items() if not is_valid):
        level: Level = "FAIL" if wanted & set(invalid) else "warn"
        yield Finding(level, f"indexes: {', '.join(invalid)} invalid", "run: REINDEX INDEX CONCURRENTLY <name>")
    if not missing and not invalid:
        yield Finding("ok", f"indexes: all {len(wanted)} are there")


def _triggers(connection: Connection) -> Finding:
    active = connection.scalars(
        text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')")
    ).all()
    if missing := sorted(set(TRIGGERS) - set(active)):
        mend = "ALTER TABLE … ENABLE TRIGGER …, then run: python -m app recount"
        return Finding("FAIL", f"triggers: {', '.join(missing)} missing or disabled", mend)
    return Finding("ok", f"triggers: all {len(TRIGGERS)} are active")


def _counts(connection: Connection, *, is_full: bool) -> Finding:
    if is_full:
        wrong = sum(len(batch.wrong) for batch in recount.recount(is_mending=False))
    else:
        wrong = recount.wrong_in_sample(connection, SAMPLED_POSTS)
    looked = "all posts" if is_full else f"a sample of at most {SAMPLED_POSTS:,} posts"
    if wrong:
        return Finding("FAIL", f"counts: {wrong:,} of {looked} differ from their votes", "run: python -m app recount")
    return Finding("ok", f"counts: those of {looked} equal their votes")
