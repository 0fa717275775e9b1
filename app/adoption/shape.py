"""Tables, columns and constraints of the current schema, read from the catalogue."""

import re
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import PGDialect

# Without doubled `%`, because SQLAlchemy doubles it where needed.
quoted = PGDialect(paramstyle="named").identifier_preparer.quote


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` is PostgreSQL's name of the type."""

    name: str
    type: str
    is_required: bool
    is_identity: bool
    is_generated: bool
    default: str | None

    @property
    def has_default(self) -> bool:
        """Whether an INSERT without the column gives it a value.

        `DEFAULT NULL` is no default.
        """
        is_null = self.default is not None and re.match(r"NULL(::|$)", self.default) is not None
        return self.is_identity or self.is_generated or (self.default is not None and not is_null)

    @property
    def is_unfilled(self) -> bool:
        """Whether each INSERT must give the column a value."""
        return self.is_required and not self.has_default

    @property
    def sequence(self) -> str | None:
        """The sequence of the default, quoted if necessary."""
        is_numbered = self.default is not None and self.default.startswith("nextval('")
        return self.default.split("'")[1] if self.default is not None and is_numbered else None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A primary key (p), unique (u), foreign key (f) or check (c) constraint.

    `on_delete` is c for CASCADE. `table` is the name of its table in SQL, with the schema if that is another one.
    `referred` is the name of a table in this schema, or `schema.table`. `definition` is what follows ADD CONSTRAINT and
    the name.
    """

    name: str
    table: str
    kind: str
    columns: tuple[str, ...]
    referred: str | None
    referred_columns: tuple[str, ...]
    on_delete: str
    is_plain: bool
    definition: str


@dataclass(frozen=True, slots=True)
class Table:
    """A relation with columns; `kind` as in `pg_class.relkind`.

    `views` and `triggers` are those that depend on it.
    """

    name: str
    kind: str
    is_ours_to_alter: bool
    columns: dict[str, Column]
    constraints: list[Constraint]
    views: list[str]
    triggers: list[str]

    def of_kind(self, kind: str) -> list[Constraint]:
        return [constraint for constraint in self.constraints if constraint.kind == kind]

    @property
    def primary_key(self) -> Constraint | None:
        return next(iter(self.of_kind("p")), None)


@dataclass(frozen=True, slots=True)
class Shape:
    """Tables by name, and the kind of every table, index, sequence and view by name.

    `outside` are the foreign keys of other schemas to tables of this one.
    """

    tables: dict[str, Table]
    relations: dict[str, str]
    outside: list[Constraint]

    def references_to(self, table: str) -> list[Constraint]:
        """Return the foreign keys to the table."""
        inside = [key for other in self.tables.values() for key in other.of_kind("f")]
        return [key for key in inside + self.outside if key.referred == table]


_RELATIONS = "SELECT relname, relkind FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
_TABLES = """
    SELECT relname AS name, relkind AS kind, pg_has_role(relowner, 'USAGE') AS is_ours_to_alter,
        ARRAY(
            SELECT DISTINCT view.relname::text FROM pg_depend
            JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class AS view ON view.oid = ev_class
            WHERE classid = 'pg_rewrite'::regclass AND refobjid = pg_class.oid AND view.oid <> pg_class.oid
        ) AS views,
        ARRAY(
            SELECT tgname::text FROM pg_trigger WHERE tgrelid = pg_class.oid AND NOT tgisinternal AND tgenabled <> 'D'
        ) AS triggers
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'f', 'v', 'm')
"""
_COLUMNS = """
    SELECT relname AS table_name, attname AS name, format_type(atttypid, atttypmod) AS type,
        attnotnull AS is_required, attidentity <> '' AS is_identity, attgenerated <> '' AS is_generated,
        pg_get_expr(adbin, adrelid) AS default
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'f', 'v', 'm')
        AND attnum > 0 AND NOT attisdropped
    ORDER BY attrelid, attnum
"""
_CONSTRAINTS = """
    SELECT own.relname AS table_name, conname AS name, contype AS kind, conrelid::regclass::text AS sql_name,
        own.relnamespace <> current_schema()::regnamespace AS is_outside,
        CASE WHEN referred.relnamespace = current_schema()::regnamespace THEN referred.relname::text
            ELSE confrelid::regclass::text END AS referred,
        ARRAY(
            SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS part (attnum, place)
            JOIN pg_attribute USING (attnum) WHERE attrelid = conrelid ORDER BY place
        ) AS columns,
        ARRAY(
            SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS part (attnum, place)
            JOIN pg_attribute USING (attnum) WHERE attrelid = confrelid ORDER BY place
        ) AS referred_columns,
        confdeltype AS on_delete, convalidated AND NOT condeferrable AS is_plain,
        pg_get_constraintdef(pg_constraint.oid) AS definition
    FROM pg_constraint JOIN pg_class AS own ON own.oid = conrelid
    LEFT JOIN pg_class AS referred ON referred.oid = confrelid
    WHERE contype IN ('p', 'u', 'f', 'c') AND conparentid = 0 AND current_schema()::regnamespace IN (
        own.relnamespace, referred.relnamespace
    )
    ORDER BY conname
"""


def read(connection: Connection) -> Shape:
    """Read the current schema."""
    tables = {
        row.name: Table(row.name, row.kind, row.is_ours_to_alter, {}, [], row.views, row.triggers)
        for row in connection.execute(text(_TABLES))
    }
    for row in connection.execute(text(_COLUMNS)):
        tables[row.table_name].columns[row.name] = Column(
            row.name, row.type, row.is_required, row.is_identity, row.is_generated, row.default
        )
    outside: list[Constraint] = []
    for row in connection.execute(text(_CONSTRAINTS)):
        constraints = outside if row.is_outside else tables[row.table_name].constraints
        constraints.append(
            Constraint(
                row.name, row.sql_name, row.kind, tuple(row.columns), row.referred, tuple(row.referred_columns),
                row.on_delete, row.is_plain, row.definition,
            )
        )  # fmt: skip
    relations: dict[str, str] = {row.relname: row.relkind for row in connection.execute(text(_RELATIONS))}
    return Shape(tables, relations, outside)
