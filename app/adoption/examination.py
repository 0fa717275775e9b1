"""Examination: read the database and make a plan, without changes.

It is one transaction, which reads every e-mail address and counts rows.
"""

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.adoption import choices as said
from app.adoption import columns, constraints, flags, names, references, rows, rules, shape, takeover
from app.adoption.choices import Choices
from app.adoption.plan import Findings, Plan, counted
from app.adoption.shape import Shape
from app.adoption.target import TUTORIAL_HEAD
from app.database.schema_version import ALEMBIC_INI
from app.database.watchdog import lift_limit

OLDEST_SERVER = 150_000
# Foreign key from votes to posts as named by migration 0007, the first after the tutorial's.
OURS = "votes_posts_fkey"


def is_adopted(connection: Connection) -> bool:
    """Return whether the tables already have this project's schema."""
    here = shape.read(connection)
    return _is_ours(here, _revisions(connection, here))


def examine(connection: Connection, choices: Choices, time_zone: str = "UTC") -> Plan:
    """Return the plan. Times without a time zone are taken as local to `time_zone`."""
    plan = Plan()
    lift_limit(connection, "LOCAL")  # Reading everything may take longer than a request.
    here = shape.read(connection)
    if (connection.scalar(text("SELECT current_setting('server_version_num')::int")) or 0) < OLDEST_SERVER:
        plan.refuse("this PostgreSQL is older than 15: upgrade the server first")
        return plan
    if connection.scalar(text("SELECT 1 FROM pg_timezone_names WHERE name = :name"), {"name": time_zone}) is None:
        plan.refuse(f"PostgreSQL has no time zone named {time_zone!r}")
        return plan
    revisions = _revisions(connection, here)
    if _is_ours(here, revisions):
        plan.is_adopted = True
        plan.is_current = revisions == [ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_current_head()]
        plan.found.append(f"tables of this project, at migration {', '.join(revisions)}")
        return plan
    if "post_stats_history" in here.tables:
        plan.refuse(
            f"this release does not know migration {', '.join(revisions) or 'none'} of its own tables: update it"
        )
        return plan
    found = Findings(connection, here, names.find_tables(here, choices, plan))
    said.check(found, choices, plan)
    if "posts" not in found.tables:
        tables = [table for table in here.tables.values() if table.kind == "r" and table.name != "alembic_version"]
        plan.refuse(
            (
                f"there is no table posts: {names.table_options(here, (), 'posts')} says which it is"
                if tables
                else "there are no tables here: check that DATABASE_URL or DATABASE_NAME is the right database"
            )
            + "; a new database needs only: alembic upgrade head"
        )
        return plan
    _describe(found, plan, revisions)
    _refuse_what_would_break(found, plan)
    names.match_columns(found, choices, plan)
    references.examine(found, choices, plan)
    names.rename(found, plan)
    columns.complete(found, plan, time_zone)
    flags.ask(found, choices, plan)
    rows.describe(found, plan)
    rules.examine(found, plan)
    if not plan.refusals:  # Rows can be checked only if the columns match.
        rows.repair(found, choices, plan)
        constraints.replace(found, plan)
        takeover.examine(found, choices, plan, time_zone)
    _stamp(plan, here, revisions)
    return plan


def _revisions(connection: Connection, here: Shape) -> list[str]:
    if "alembic_version" not in here.tables:
        return []
    return list(connection.scalars(text("SELECT version_num FROM alembic_version")))


def _is_ours(here: Shape, revisions: list[str]) -> bool:
    """Return whether a revision is in our chain after the tutorial's.

    Others may use the same revision names.
    """
    chain = ScriptDirectory.from_config(Config(ALEMBIC_INI)).iterate_revisions("head", TUTORIAL_HEAD)
    is_in_chain = bool({script.revision for script in chain}.intersection(revisions))
    votes = here.tables.get("votes")
    return is_in_chain and votes is not None and any(key.name == OURS for key in votes.constraints)


def _describe(found: Findings, plan: Plan, revisions: list[str]) -> None:
    for name, table in found.tables.items():
        size = found.count(name, "true") if table.kind == "r" else 0
        plan.found.append(f"{table.name}: {counted(size, 'row')} ({', '.join(table.columns)})")
    plan.found.append(f"alembic: {', '.join(revisions) or 'no revision'}")
    known = {table.name for table in found.tables.values()} | {"alembic_version"}
    if others := sorted(set(found.shape.tables) - known):
        plan.note(f"your other tables, whose rows stay: {', '.join(others)}")


def _refuse_what_would_break(found: Findings, plan: Plan) -> None:
    for table in found.tables.values():
        if table.kind != "r":
            plan.refuse(f"{table.name} is not an ordinary table: convert it to one")
        if not table.is_ours_to_alter:
            plan.refuse(f"{table.name} belongs to another role: connect as its owner")
        if table.views:
            plan.refuse(f"views depend on {table.name}: drop {', '.join(table.views)} and create them again afterwards")
        if table.triggers:
            plan.refuse(
                f"{table.name} has triggers, which may interfere: ALTER TABLE {table.name} DISABLE TRIGGER"
                f" {', '.join(table.triggers)}"
            )


def _stamp(plan: Plan, here: Shape, revisions: list[str]) -> None:
    if revisions == [TUTORIAL_HEAD]:
        return
    make = "CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
    plan.do(
        f"tell Alembic that this is revision {TUTORIAL_HEAD}"
        + (f", in the place of {', '.join(revisions)}" if revisions else ""),
        *([] if "alembic_version" in here.tables else [make]),
        "DELETE FROM alembic_version",
        f"INSERT INTO alembic_version VALUES ('{TUTORIAL_HEAD}')",
    )
