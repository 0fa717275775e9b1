"""`python -m app doctor`: read-only checks of the configuration and the database."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    create_engine,
    text,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.cli.finding import Finding, Level
from app.cli.stored_pictures import examine_pictures
from app.cli.surroundings import examine_backups, examine_event_delay, examine_surroundings
from app.config import Settings, misspelt_settings
from app.database import replica, schema_version
from app.database.engines import max_connections
from app.database.references import own_foreign_keys
from app.models import Base
from app.models.security_event import Event
from app.security.email_addresses import canonical_email
from app.services import recount

OLDEST_SERVER = 150_000
SAMPLED_ROWS = 2_000
MAX_NAMED_ROWS = 20
# Access tokens expire by this machine's clock, sessions by the database's.
WORRYING_SECONDS = 2.0
WRONG_SECONDS = 30.0
# Keep names, search vectors and counts correct for every writer.
TRIGGERS = (
    "users_name", "posts_search", "posts_stats_begin", "posts_stats_follow",
    "votes_count_insert", "votes_count_delete", "votes_count_update", "votes_count_truncate", "comments_bury",
    "comments_count_insert", "comments_count_delete", "comments_count_update", "comments_count_truncate",
    "comment_votes_count_insert", "comment_votes_count_delete", "comment_votes_count_update",
    "comment_votes_count_truncate",
    "posts_tags_insert", "posts_tags_update", "posts_tags_delete", "post_tags_truncate",
    "tag_follows_count_insert", "tag_follows_count_delete", "tag_follows_truncate",
    "posts_count_insert", "posts_count_delete", "posts_count_update", "posts_count_truncate",
    "follows_count_insert", "follows_count_delete", "follows_count_update", "follows_count_truncate",
)  # fmt: skip
# Privileges beyond reading and writing rows, which is all that a server needs. Reading statistics is harmless.
_ROLE = text("""
    SELECT rolname AS name, rolsuper AS is_superuser, array_remove(
        ARRAY[
            CASE WHEN rolcreaterole THEN 'make roles' END,
            CASE WHEN rolcreatedb THEN 'make databases' END,
            CASE WHEN rolreplication THEN 'replicate' END,
            CASE WHEN rolbypassrls THEN 'pass by row security' END,
            CASE WHEN has_database_privilege(current_database(), 'CREATE') THEN 'make schemas' END,
            CASE WHEN has_database_privilege(current_database(), 'TEMPORARY') THEN 'make temporary tables' END,
            CASE WHEN has_schema_privilege(current_schema(), 'CREATE') THEN 'make tables' END,
            CASE WHEN EXISTS (
                SELECT FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
                    AND pg_has_role(relowner, 'USAGE')
            ) THEN 'change and drop tables' END,
            CASE WHEN EXISTS (
                SELECT FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
                    AND has_table_privilege(oid, 'TRUNCATE')
            ) THEN 'empty tables' END,
            (
                SELECT 'act as ' || string_agg(rolname, ' and ' ORDER BY rolname) FROM pg_roles
                WHERE rolname ~ '^pg_' AND rolname !~ '^pg_(monitor|read_all_s|stat_scan|database_owner)'
                    AND pg_has_role(oid, 'MEMBER')
            )
        ], NULL
    ) AS rights
    FROM pg_roles WHERE rolname = current_user
""")


_BEYOND_ASCII = text(r"""
    SELECT id, email, email_canonical FROM users
    WHERE id > :last AND email !~ '^[\x01-\x7f]*$' ORDER BY id LIMIT 1000
""")


# Foreign keys outside our models to posts, accounts or rows deleted with them, without ON DELETE.
_FORBIDDING = text("""
    WITH RECURSIVE deleted AS (
        SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname IN ('posts', 'users')
        UNION
        SELECT conrelid FROM pg_constraint JOIN deleted ON confrelid = deleted.oid
        WHERE contype = 'f' AND confdeltype = 'c'
    )
    SELECT conname || ' of ' || conrelid::regclass FROM pg_constraint JOIN deleted ON confrelid = deleted.oid
    WHERE contype = 'f' AND conparentid = 0 AND confdeltype IN ('a', 'r') AND conname <> ALL (:own) ORDER BY 1
""")


def examine(engine: Engine, settings: Settings, *, is_full: bool) -> Iterator[Finding]:
    """Run every check and yield each result at once.

    `is_full` checks every count and every file of a picture, not a sample.
    """
    yield from _configuration(settings)
    yield from examine_surroundings(settings)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield from _server(connection)
        yield _role(connection, settings)
        yield _clock(connection)
        yield _connections(connection, settings)
        yield _limits(connection, settings)
        yield from _ways(connection, settings)
        yield from examine_backups(connection, settings)
        migrations = _migrations(connection)
        yield migrations
        if migrations.level == "FAIL":
            return  # The checks below would fail for the same reason.
        yield _rights(connection)
        yield from _indexes(connection)
        yield _triggers(connection)
        yield _references(connection)
        yield _addresses(connection)
        yield _counts(connection, is_full=is_full)
        yield from _odd_rows(engine, is_full=is_full)
        yield _deletions(connection)
        yield from examine_pictures(connection, is_full=is_full)
        yield examine_event_delay(connection)


def _configuration(settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", f"configuration: valid, ENVIRONMENT is {settings.environment}")
    for sentence in misspelt_settings():
        yield Finding("warn", f"configuration: {sentence}")
    if settings.secret_key is None:
        yield Finding("warn", "secret: generated for development in .local/", "set SECRET_KEY before you deploy")
    if settings.environment == "production" and settings.cors_origins is None:
        yield Finding("warn", "browsers: no web page may call the API", "set CORS_ORIGINS if a web page should")
    if settings.environment == "production" and settings.tutorial_defaults:
        what = "tutorial defaults: short and common passwords, and tokens without a session, are accepted; "
        what += "e-mail addresses are public"
        yield Finding("warn", what, "unset TUTORIAL_DEFAULTS, or set the four settings one by one")


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
    role = connection.execute(_ROLE).one()
    remedy = "connect as a role that deploy/postgres/roles.sql makes"
    if role.is_superuser:
        level: Level = "FAIL" if settings.environment == "production" else "warn"
        return Finding(level, f"role {role.name}: a superuser, who may do anything on the server", remedy)
    if not role.rights:
        return Finding("ok", f"role {role.name}: may read and write rows only")
    return Finding(
        "warn" if settings.environment == "production" else "ok",
        f"role {role.name}: may also {', '.join(role.rights)}",
        remedy,
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
    # The database read its clock at an unknown time between the two readings here.
    seconds = max(before - there, there - after, 0.0)
    level: Level = "ok" if seconds < WORRYING_SECONDS else "warn" if seconds < WRONG_SECONDS else "FAIL"
    remedy = "" if level == "ok" else "run a time service (chrony, systemd-timesyncd) on both machines"
    return Finding(level, f"clock: {seconds:.1f} s between this machine and the database", remedy)


def _connections(connection: Connection, settings: Settings) -> Finding:
    each = max_connections(settings)
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
        f" the server allows {allowed}, of which other clients use {others}"
    )
    # A pooler exists to map many client connections to few server connections.
    if wanted <= allowed - others or settings.database_behind_pooler:
        return Finding("ok", what)
    remedy = "lower DATABASE_POOL_SIZE or WORKERS, raise max_connections, or put PgBouncer in between"
    return Finding("FAIL" if wanted > allowed else "warn", what, remedy)


def _limits(connection: Connection, settings: Settings) -> Finding:
    missing = connection.scalars(
        text("""
            SELECT name FROM pg_settings
            WHERE name IN ('idle_in_transaction_session_timeout', 'statement_timeout') AND setting = '0' ORDER BY name
        """)
    ).all()
    if not missing:
        return Finding("ok", "limits: slow statements and idle transactions time out")
    role = connection.scalar(text("SELECT quote_ident(current_user)"))
    seconds = settings.database_statement_timeout_seconds
    # ALTER ROLE, because a pooler ignores settings that a client sends when it connects.
    remedy = "; ".join(f"ALTER ROLE {role} SET {name} = '{seconds}s'" for name in missing)
    return Finding("warn", f"limits: no {', no '.join(missing)}", f"run: {remedy}; then let the pooler reconnect")


def _ways(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check the direct connection past a pooler, and the replica."""
    if settings.database_direct_url is not None:
        yield _direct(connection, settings)
    elif settings.database_behind_pooler:
        yield Finding("warn", "migrations: none can run through a pooler", "set DATABASE_DIRECT_URL where they are run")
    if settings.replica_database is not None:
        yield from _replica(connection, settings)


def _direct(connection: Connection, settings: Settings) -> Finding:
    try:
        with _connected(settings.direct_database, settings) as direct:
            if direct.execute(replica.WHOSE).one() == connection.execute(replica.WHOSE).one():
                return Finding("ok", "direct database: the same database, past the pooler")
    except OperationalError as error:
        return Finding("FAIL", f"direct database: {_words(error)}", "correct DATABASE_DIRECT_URL")
    return Finding("FAIL", "direct database: another one", "correct DATABASE_DIRECT_URL")


def _replica(connection: Connection, settings: Settings) -> Iterator[Finding]:
    try:
        with _connected(settings.replica_database, settings) as there:
            state = replica.look(connection, there, WORRYING_SECONDS)
            clock = _clock(there)
    except OperationalError as error:
        remedy = "start it (with hot_standby on), or correct DATABASE_REPLICA_URL"
        yield Finding("warn", f"replica: the primary answers reads alone: {_words(error)}", remedy)
        return
    if state == "replica":
        yield Finding("ok", "replica: it follows the primary and answers reads")
    elif state == "behind":
        remedy = "check for paused replay or an overloaded machine"
        what = f"replica: more than {WORRYING_SECONDS:.0f} s behind, so the primary answers reads"
        yield Finding("warn", what, remedy)
    else:
        remedy = "correct DATABASE_REPLICA_URL; after a failover, run CHECKPOINT there once it follows the new primary"
        yield Finding("FAIL", "replica: it does not follow this primary", remedy)
    yield Finding(clock.level, f"replica: {clock.what}", clock.remedy)
    if connection.scalar(text("SELECT current_setting('synchronous_commit') = 'off'")):
        remedy = "turn it on, or unset DATABASE_REPLICA_URL"
        yield Finding("warn", "replica: synchronous_commit is off, so reads can miss the latest writes", remedy)


@contextmanager
def _connected(url: URL | None, settings: Settings) -> Iterator[Connection]:
    assert url is not None  # noqa: S101 - the callers checked it.
    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": settings.database_connect_timeout_seconds, "client_encoding": "utf8"},
    )
    with engine.connect() as connection:
        yield connection


def _words(error: OperationalError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _migrations(connection: Connection) -> Finding:
    (found,) = schema_version.check(connection, [None])
    if isinstance(found, Exception):
        raise found
    if found.is_ahead:
        what = f"migrations: at {found.revision}, newer than {found.head}, the newest that this release knows"
        return Finding("warn", what, "deploy the newer release, unless a deployment is in progress")
    if found.is_migrated:
        return Finding("ok", f"migrations: at {found.revision}, the newest")
    if found.is_foreign:
        what = "migrations: other software, such as the tutorial, made the tables"
        return Finding("FAIL", what, "run: python -m app adopt")
    return Finding("FAIL", f"migrations: at {found.revision or 'none'}, not {found.head}", "run: alembic upgrade head")


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
        yield Finding("FAIL", f"indexes: {', '.join(missing)} missing", "create them as in alembic/versions/")
    if invalid := sorted(name for name, is_valid in valid.items() if not is_valid):
        level: Level = "FAIL" if wanted & set(invalid) else "warn"
        yield Finding(level, f"indexes: {', '.join(invalid)} invalid", "run: REINDEX INDEX CONCURRENTLY <name>")
    if not missing and not invalid:
        yield Finding("ok", f"indexes: all {len(wanted)} are present and valid")


def _triggers(connection: Connection) -> Finding:
    active = connection.scalars(
        text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')")
    ).all()
    if missing := sorted(set(TRIGGERS) - set(active)):
        remedy = "ALTER TABLE … ENABLE TRIGGER …, then run: python -m app recount"
        return Finding("FAIL", f"triggers: {', '.join(missing)} missing or disabled", remedy)
    return Finding("ok", f"triggers: all {len(TRIGGERS)} are active")


def _references(connection: Connection) -> Finding:
    found = connection.scalars(_FORBIDDING, {"own": own_foreign_keys()}).all()
    if not found:
        return Finding("ok", "references: no foreign key prevents deleting posts or accounts")
    return Finding(
        "warn",
        f"references: {', '.join(found)} prevent deleting posts or accounts (409 still_referenced)",
        "make each ON DELETE CASCADE or SET NULL (ALTER TABLE … DROP CONSTRAINT …, ADD …)",
    )


def _addresses(connection: Connection) -> Finding:
    """Check stored canonical addresses.

    Only non-ASCII ones can have an older form (migration 0025).
    """
    ids: list[int] = []
    last = 0
    while rows := connection.execute(_BEYOND_ASCII, {"last": last}).all():
        last = rows[-1].id
        ids += [row.id for row in rows if canonical_email(row.email) != row.email_canonical]
    if not ids:
        return Finding("ok", "addresses: every account can be found by its e-mail address")
    named = ", ".join(map(str, ids[:MAX_NAMED_ROWS])) + (", …" if ids[MAX_NAMED_ROWS:] else "")
    return Finding(
        "warn",
        f"addresses: {len(ids):,} accounts are not found by their e-mail address (ids {named})",
        "save each address again (PATCH /users/{id}), or another one if it is taken; until then, usernames sign in",
    )


def _counts(connection: Connection, *, is_full: bool) -> Finding:
    if is_full:
        wrong = sum(len(batch.wrong) for batch in recount.recount(is_repairing=False))
    else:
        wrong = recount.wrong_in_sample(connection, SAMPLED_ROWS)
    looked = "all" if is_full else f"a sample of at most {SAMPLED_ROWS:,} per table"
    if wrong:
        what = f"counts: {wrong:,} of {looked} differ from the rows that they count"
        return Finding("FAIL", what, "run: python -m app recount")
    return Finding("ok", f"counts: {looked} match the rows that they count")


# `passwords.can_be_verified` as a PostgreSQL regex: bcrypt with cost 4 to 16, plain or over a SHA-256 digest.
VERIFIABLE_HASH = (
    "^([$]2[aby]?[$](0[4-9]|1[0-6])[$][./A-Za-z0-9]{53}"
    "|[$]bcrypt-sha256[$]v=2,t=2[aby],r=([4-9]|1[0-6])[$][./A-Za-z0-9]{22}[$][./A-Za-z0-9]{31})$"
)
# Unusual rows that other software may have written: description, SQL condition, remedy. The condition on keys uses an
# index; the others read the whole table.
_ODD_KEYS = ("with an id below 1, for which the API returns 404", "id < 1", "give each a free id above 0")
_ODD_TIMES = (
    "with a time outside the years 1 to 9999, shown as the nearest year in that range",
    "NOT (created_at >= '0001-01-01' AND created_at < '10000-01-01')",
    "UPDATE their created_at",
)
_ODD_HASHES = (
    "with a password hash that cannot be verified: they cannot sign in",
    # Accounts with an empty hash must not sign in, such as the owner of adopted posts that had no owner.
    f"password_hash <> '' AND password_hash !~ '{VERIFIABLE_HASH}'",
    "have them reset the password, or run: python -m app user reset-password",
)
# A rolled-back release can have written kinds that this one does not know.
_ODD_EVENTS = (
    "with a kind or details that the API does not list, or only in part",
    f"event NOT IN ({', '.join(repr(event.value) for event in Event)}) OR jsonb_typeof(details) <> 'object'"
    """ OR details @? 'strict $.* ? (@.type() == "object" || @.type() == "array")'""",
    "deploy the release that wrote them, or delete the rows",
)


def _odd_rows(engine: Engine, *, is_full: bool) -> Iterator[Finding]:
    """Report rows of other software that the API cannot serve, or only in part."""
    looked_for = [("users", _ODD_KEYS), ("posts", _ODD_KEYS)]
    if is_full:
        looked_for += [("users", _ODD_TIMES), ("posts", _ODD_TIMES), ("users", _ODD_HASHES)]
        looked_for.append(("security_events", _ODD_EVENTS))
    is_odd = False
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        for table, (what, condition, remedy) in looked_for:
            statement = f"SELECT id FROM {table} WHERE {condition} ORDER BY id LIMIT {MAX_NAMED_ROWS + 1}"
            if ids := connection.scalars(text(statement)).all():
                is_odd = True
                named = ", ".join(map(str, ids[:MAX_NAMED_ROWS])) + (", …" if len(ids) > MAX_NAMED_ROWS else "")
                yield Finding("warn", f"rows: {table} {named} {what}", remedy)
    if not is_odd:
        yield Finding("ok", "rows: ids, times, password hashes and security events" if is_full else "rows: ids", "")


def _deletions(connection: Connection) -> Finding:
    blocked = connection.scalars(
        text("SELECT user_id FROM deletions WHERE blocked_at IS NOT NULL ORDER BY 1 LIMIT :limit"),
        {"limit": MAX_NAMED_ROWS + 1},
    ).all()
    if blocked:
        named = ", ".join(map(str, blocked[:MAX_NAMED_ROWS])) + (", …" if blocked[MAX_NAMED_ROWS:] else "")
        return Finding(
            "warn",
            f"deletions: a foreign key prevents deleting rows of deleted accounts {named}",
            "change the foreign keys listed under `references`; the servers retry every hour",
        )
    waiting, since = connection.execute(
        text("SELECT count(*), to_char(min(requested_at), 'YYYY-MM-DD HH24:MI TZ') FROM deletions")
    ).one()
    if not waiting:
        return Finding("ok", "deletions: none in progress")
    what = f"deletions: {waiting:,} in progress, the oldest since {since}"
    is_late = connection.scalar(text("SELECT min(requested_at) < now() - interval '1 hour' FROM deletions"))
    remedy = "set CLEANUP_INTERVAL_MINUTES above 0, or run: python -m app worker (or python -m app cleanup)"
    return Finding("warn", what, remedy) if is_late else Finding("ok", what)
