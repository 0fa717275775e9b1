"""Target of the adoption: the tutorial's last step (0006).

Also the names that later migrations need.
"""

from dataclasses import dataclass
from typing import Literal

from app.models import Base

TUTORIAL_HEAD = "0006"

Kind = Literal["key", "text", "flag", "time"]
TYPES: dict[Kind, str] = {
    "key": "bigint",
    "text": "character varying",
    "flag": "boolean",
    "time": "timestamp with time zone",
}
INTEGERS = frozenset({"smallint", "integer", "bigint"})
# Our tables of later migrations that rows of other tables can be copied into, with usual names of those.
TAKEN_OVER = {
    "comments": ("comments", "comment"),
    "tags": ("tags", "tag"),
    "follows": ("follows", "follow", "followers", "follower"),
    "bookmarks": ("bookmarks", "bookmark", "saved_posts", "saved_post"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the tutorial, with usual other names and SQL to fill missing values."""

    name: str
    kind: Kind
    also_called: tuple[str, ...] = ()
    fill: str | None = None
    default: str | None = None
    may_be_missing: bool = False
    refers_to: str | None = None


FIELDS: dict[str, tuple[Field, ...]] = {
    "users": (
        Field("id", "key", ("user_id", "userid")),
        Field("email", "text", ("email_address", "mail", "user_email")),
        Field("password", "text", ("hashed_password", "password_hash", "passwd"), fill="''"),
        Field("created_at", "time", ("created_on", "created", "time"), "now()", "now()", may_be_missing=True),
    ),
    "posts": (
        Field("id", "key", ("post_id", "postid")),
        Field("title", "text", fill="''"),
        Field("content", "text", ("body", "text"), "''", may_be_missing=True),
        Field("published", "flag", ("is_published",), "true", "true", may_be_missing=True),
        Field("created_at", "time", ("created_on", "created", "time"), "now()", "now()", may_be_missing=True),
        Field(
            "owner_id",
            "key",
            ("user_id", "author_id", "creator_id", "account_id", "userid", "created_by"),
            may_be_missing=True,
            refers_to="users",
        ),
    ),
    "votes": (
        Field("user_id", "key", ("voter_id", "owner_id", "userid", "account_id", "author_id"), refers_to="users"),
        Field("post_id", "key", ("postid",), refers_to="posts"),
    ),
}
# Names of foreign keys that migration 0007 expects.
REFERENCES = {
    ("posts", "owner_id"): "posts_users_fk",
    ("votes", "post_id"): "votes_post_id_fkey",
    ("votes", "user_id"): "votes_user_id_fkey",
}
PRIMARY_KEYS = {"users": ("id",), "posts": ("id",), "votes": ("user_id", "post_id")}
# Tables that are created if they are missing.
MISSING_TABLES = {
    "users": """
        CREATE TABLE users (
            id serial CONSTRAINT users_pkey PRIMARY KEY, email varchar NOT NULL CONSTRAINT users_email_key UNIQUE,
            password varchar NOT NULL, created_at timestamptz NOT NULL DEFAULT now()
        )
    """,
    "votes": """
        CREATE TABLE votes (
            user_id bigint CONSTRAINT votes_user_id_fkey REFERENCES users ON DELETE CASCADE,
            post_id bigint CONSTRAINT votes_post_id_fkey REFERENCES posts ON DELETE CASCADE,
            CONSTRAINT votes_pkey PRIMARY KEY (user_id, post_id)
        )
    """,
}


def later_columns(table: str) -> set[str]:
    """Return the names of columns that later migrations add to the table."""
    return set(Base.metadata.tables[table].columns.keys()) - {field.name for field in FIELDS[table]}


def taken_relations() -> set[str]:
    """Return the names of our tables, indexes and sequences.

    They include those that a migration renames later.
    """
    names = {"users_email_key"}
    for table in Base.metadata.tables.values():
        names |= {table.name} | {str(index.name) for index in table.indexes}
        names |= {str(constraint.name) for constraint in table.constraints if constraint.name is not None}
        names |= {f"{table.name}_{column.name}_seq" for column in table.columns if column.identity is not None}
    return names - set(FIELDS)


def taken_constraints(table: str) -> set[str]:
    """Return the names of the table's foreign keys and checks.

    They include those that a migration renames later.
    """
    own = {str(constraint.name) for constraint in Base.metadata.tables[table].constraints if constraint.name}
    return own | {name for (on, _), name in REFERENCES.items() if on == table}
