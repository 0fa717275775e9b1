"""Foreign constraints on users, posts and votes: adoption names those that writes may violate."""

from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL, Connection, Engine

from tests.fixtures import _server
from tests.migrations import descendants
from tests.migrations.conftest import address
from tests.migrations.test_adopting_choices import ACCOUNTS, change
from tests.migrations.test_descendants import adopt, examine, rows

# What is made on the database, and whether a write of the API may violate it.
RULES = {
    "ALTER TABLE posts ADD CONSTRAINT rule CHECK (length(title) > 2)": True,
    "ALTER TABLE posts ADD CONSTRAINT rule UNIQUE (owner_id, title)": True,
    "CREATE UNIQUE INDEX rule ON posts (lower(title)) WHERE published": True,
    "ALTER TABLE posts ADD CONSTRAINT rule EXCLUDE (title WITH =)": True,
    "ALTER TABLE votes ADD CONSTRAINT rule UNIQUE (user_id) DEFERRABLE": True,
    "CREATE UNIQUE INDEX rule ON users (lower(email))": True,
    "ALTER TABLE users ADD CONSTRAINT rule UNIQUE NULLS NOT DISTINCT (phone_number)": True,
    "ALTER TABLE users ADD level int DEFAULT 1, ADD CONSTRAINT rule CHECK (level > 0)": True,
    # What nothing is written to is NULL in new rows, which violates nothing.
    "ALTER TABLE users ADD CONSTRAINT rule CHECK (phone_number ~ '^[0-9%%:]+$')": False,
    "ALTER TABLE users ADD CONSTRAINT rule UNIQUE (phone_number, email)": False,
    # Our own constraints forbid the same.
    "ALTER TABLE votes ADD CONSTRAINT rule UNIQUE (post_id, user_id)": False,
    "ALTER TABLE posts ADD CONSTRAINT rule UNIQUE (id, title)": False,
    "ALTER TABLE users ADD CONSTRAINT rule UNIQUE (email)": False,
    "CREATE UNIQUE INDEX rule ON users (email)": False,
}


def make(connection: Connection, rule: str) -> None:
    descendants.make(connection, descendants.BY_ALEMBIC)
    # So that no two rows have the same.
    change(
        connection, "UPDATE users SET phone_number = id", "DELETE FROM votes WHERE user_id = 2 AND post_id = 1", rule
    )


@pytest.mark.parametrize("rule", RULES)
def test_constraint_that_a_write_may_violate_is_named_and_kept(
    url: URL, engine: Engine, looking: Connection, rule: str
) -> None:
    make(looking, rule)
    kept = "SELECT count(*) FROM pg_class WHERE relname = 'rule'"
    before = rows(looking, kept)

    plan = examine(engine)

    assert plan.refusals == []
    named = [note for note in plan.notes if "keeps its own constraint rule, " in note]
    assert len(named) == RULES[rule]
    assert all("a write that violates it is answered with 409 constraint_violated" in note for note in named)
    adopt(url)
    if "(email)" not in rule or "lower" in rule:  # That one is replaced by ours.
        assert rows(looking, kept) == before


@pytest.mark.parametrize("rule", [rule for rule, is_named in RULES.items() if is_named])
def test_command_that_removes_a_constraint_can_be_copied(engine: Engine, looking: Connection, rule: str) -> None:
    make(looking, rule)
    (note,) = [note for note in examine(engine).notes if "keeps its own constraint rule, " in note]

    change(looking, note.rpartition("; ")[2].removesuffix(" removes it"))

    assert not any("keeps its own constraint" in note for note in examine(engine).notes)


# Constraints that make every write fail, and the statements that remove them.
EVERY_ROW = {
    "CHECK (rating IS NOT NULL)": "ALTER TABLE posts DROP CONSTRAINT rule",
    "CHECK (coalesce(rating, -1) > 0)": "ALTER TABLE posts DROP CONSTRAINT rule",
}


@pytest.mark.parametrize("check", EVERY_ROW)
def test_check_that_every_new_row_violates_is_refused_with_the_statement_that_repairs_it(
    url: URL, engine: Engine, looking: Connection, check: str
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, "ALTER TABLE posts ADD rating int", "UPDATE posts SET rating = 1")
    change(looking, f"ALTER TABLE posts ADD CONSTRAINT rule {check}")

    (refusal,) = examine(engine).refusals

    assert refusal.startswith("posts has a constraint rule, CHECK (")
    mend = refusal.rpartition(": ")[2]
    assert mend == EVERY_ROW[check]
    change(looking, mend)
    adopt(url)


def test_column_whose_type_cannot_be_null_is_refused_with_the_statement_that_repairs_it(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, ACCOUNTS)
    change(
        looking,
        "CREATE DOMAIN nick AS varchar(9) NOT NULL",
        "ALTER TABLE accounts ADD alias nick DEFAULT 'x'",
        "ALTER TABLE accounts ALTER alias DROP DEFAULT",
    )

    (refusal,) = examine(engine).refusals

    assert refusal.startswith("accounts.alias is nick, which cannot be NULL")
    change(looking, refusal.rpartition(": ")[2])
    adopt(url)
    insert = "INSERT INTO users (email, email_canonical, password_hash) VALUES ('n', 'n', '') RETURNING alias"
    assert rows(looking, insert) == [(None,)]


@pytest.mark.parametrize("default", ["", "DEFAULT NULL", "DEFAULT NULL::varchar"])
def test_required_column_of_theirs_that_nothing_fills_may_be_empty(url: URL, looking: Connection, default: str) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(
        looking,
        f"ALTER TABLE posts ADD rating varchar {default}",
        "UPDATE posts SET rating = 'x'",
        "ALTER TABLE posts ALTER rating SET NOT NULL",
    )

    adopt(url)

    insert = "INSERT INTO posts (title, content, owner_id) VALUES ('', '', 1) RETURNING rating"
    assert rows(looking, insert) == [(None,)]


@pytest.mark.parametrize("name", ["ix_users_email", "users_email_key"])
def test_taken_address_is_a_taken_address_in_spite_of_an_index_of_theirs(
    url: URL, looking: Connection, tmp_path: Path, name: str
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(
        looking,
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        f"CREATE UNIQUE INDEX {name} ON users (email)",
        "CREATE UNIQUE INDEX another ON users (email)",
        "ALTER TABLE posts ADD CONSTRAINT posts_title_check CHECK (length(title) > 2)",
    )

    adopt(url)

    with _server(tmp_path, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        account = {"email": "bob@example.com", "password": "a long enough password"}
        taken = client.post("/users", json=account)
        assert (taken.status_code, taken.json()["code"]) == (409, "email_taken")
        form = {"username": "bob@example.com", "password": descendants.PASSWORD}
        client.headers["Authorization"] = f"Bearer {client.post('/login', data=form).json()['access_token']}"
        refused = client.post("/posts", json={"title": "x", "content": "x"})
        assert (refused.status_code, refused.json()["code"]) == (409, "constraint_violated")
        assert client.post("/posts", json={"title": "long", "content": "x"}).status_code == 201
