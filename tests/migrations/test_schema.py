"""The migrated schema equals the models, with names by the convention."""

import re
from itertools import pairwise
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Column, Connection, Integer, MetaData, text

from alembic import command
from app.database import schema_version
from app.models import Base
from tests.migrations.conftest import ROOT, address, config_for, revisions, run_alembic


def test_upgrade_from_nothing_reaches_head_and_alembic_check_finds_no_drift(url: URL) -> None:
    command.upgrade(config_for(url), "head")

    assert run_alembic("check", DATABASE_URL=address(url)).returncode == 0


def test_alembic_check_fails_on_a_database_that_differs_from_the_models(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "head")
    looking.execute(text("ALTER TABLE posts DROP COLUMN version"))

    check = run_alembic("check", DATABASE_URL=address(url))

    assert check.returncode != 0
    assert "add_column" in check.stdout


def test_servers_know_the_newest_migration_without_alembic() -> None:
    assert schema_version.head() == revisions()[-1]


def test_header_of_each_revision_names_what_its_variables_do() -> None:
    for script in ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions():
        header = dict(re.findall(r"^(Revision ID|Revises): ?(.*)$", script.module.__doc__ or "", re.MULTILINE))
        assert header == {"Revision ID": script.revision, "Revises": script.down_revision or ""}, script.path
        assert f"_{script.revision}_" in Path(script.path).name


def test_column_added_to_the_models_is_found_as_drift(connection: Connection) -> None:
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in Base.metadata.sorted_tables:
        table.to_metadata(metadata)
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    assert compare_metadata(context, metadata) == []

    metadata.tables["posts"].append_column(Column("likes", Integer))

    ((kind, _, table_name, column),) = compare_metadata(context, metadata)
    assert (kind, table_name, column.name) == ("add_column", "posts", "likes")


def test_every_foreign_key_has_an_index_that_begins_with_its_columns(connection: Connection) -> None:
    keys = connection.execute(
        text("""
            SELECT conname, EXISTS (
                SELECT FROM pg_index WHERE indrelid = conrelid AND indisvalid
                    -- `column = $1` implies `column IS NOT NULL`.
                    AND coalesce(pg_get_expr(indpred, indrelid) = format('(%s IS NOT NULL)', (
                        SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1]
                    )), true)
                    AND (string_to_array(indkey::text, ' ')::smallint[])[1:cardinality(conkey)] = conkey
            ) AS is_indexed
            FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
        """)
    ).all()

    assert len(keys) >= 6
    assert [key.conname for key in keys if not key.is_indexed] == []


def test_every_id_column_is_a_bigint(connection: Connection) -> None:
    keys = connection.execute(
        text("""
            SELECT conrelid::regclass || '.' || attname AS name, atttypid::regtype::text AS type
            FROM pg_constraint CROSS JOIN LATERAL unnest(conkey) AS part (attnum)
            JOIN pg_attribute ON attrelid = conrelid AND pg_attribute.attnum = part.attnum
            WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace AND atttypid::regtype::text ~ 'int'
        """)
    ).all()

    assert len(keys) >= 10
    assert [key.name for key in keys if key.type != "bigint"] == []


def test_every_constraint_is_named_by_the_convention(connection: Connection) -> None:
    constraints = connection.execute(
        text("""
            SELECT conname AS name, contype AS kind, relation.relname AS table_name, referred.relname AS referred,
                (
                    SELECT string_agg(attname, '_' ORDER BY place)
                    FROM unnest(conkey) WITH ORDINALITY AS part (attnum, place)
                    JOIN pg_attribute USING (attnum) WHERE attrelid = conrelid
                ) AS columns
            FROM pg_constraint
            JOIN pg_class AS relation ON relation.oid = conrelid
            LEFT JOIN pg_class AS referred ON referred.oid = confrelid
            WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'f', 'c')
                AND relation.relname <> 'alembic_version'
        """)
    ).all()

    # With the column, where a table has two keys to the same table.
    names = {"p": "{0}_pkey", "u": "{0}_{1}_key", "f": "{0}_({1}_)?{2}_fkey", "c": r"{0}_\w+_check"}
    assert {row.kind for row in constraints} == set(names)
    assert [
        row.name
        for row in constraints
        if not re.fullmatch(names[row.kind].format(row.table_name, row.columns, row.referred), row.name)
    ] == []


def test_every_index_is_named_by_the_convention(connection: Connection) -> None:
    indexes = connection.execute(
        text("""
            SELECT indexrelid::regclass::text AS name, indrelid::regclass::text AS table_name, indisunique AS is_unique,
                (
                    SELECT string_agg(substring(pg_get_indexdef(indexrelid, place, false) FROM '\\w+(?=$|\\)::)'), '_'
                        ORDER BY place)
                    FROM generate_series(1, indnkeyatts) AS place
                ) AS columns
            FROM pg_index WHERE NOT indisprimary AND indrelid IN (SELECT oid FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
        """)
    ).all()

    assert len(indexes) >= 10
    assert [
        row.name for row in indexes if row.name != f"{row.table_name}_{row.columns}_{'key' if row.is_unique else 'idx'}"
    ] == []


def test_revisions_are_one_line_whose_files_are_named_by_date_and_in_its_order() -> None:
    chain = revisions()
    files = sorted(path.name for path in (ROOT / "alembic" / "versions").glob("*.py"))
    sources = {name: (ROOT / "alembic" / "versions" / name).read_text() for name in files}

    assert [name for name in files if not re.fullmatch(r"20\d\d_[01]\d_[0-3]\d_\d{4}_[a-z0-9_]+\.py", name)] == []
    in_order = [re.findall(r'^revision = "(\w+)"', sources[name], re.MULTILINE)[0] for name in files]
    assert in_order == chain
    befores = [re.findall(r'^down_revision = (?:"(\w+)"|None)', sources[name], re.MULTILINE)[0] for name in files]
    assert list(zip(befores[1:], in_order[1:], strict=True)) == list(pairwise(chain))


def test_revisions_are_numbers_so_that_a_server_knows_a_later_one_it_has_never_heard_of() -> None:
    assert revisions() == [f"{number:04}" for number in range(1, len(revisions()) + 1)]
