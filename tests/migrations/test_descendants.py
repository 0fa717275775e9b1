"""`python -m app adopt` on databases of differently grown descendants, with their rows."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, text

from app import adoption
from app.security import passwords
from tests.migrations import descendants
from tests.migrations.conftest import contents, drift, revisions, version
from tests.races.conftest import wrong_counts

HEAD = revisions()[-1]


def adopt(url: URL, *maps: str, on_delete: Sequence[str] = (), is_dry_run: bool = False) -> list[str]:
    """Adopt the database, and return what was reported."""
    said: list[str] = []
    choices = adoption.Choices.parse(maps, on_delete)
    adoption.adopt(url, said.append, tokens_live=timedelta(minutes=30), choices=choices, is_dry_run=is_dry_run)
    return said


def examine(engine: Engine, *maps: str, on_delete: Sequence[str] = ()) -> adoption.Plan:
    """Examine the database, which changes nothing."""
    return adoption.look(engine, adoption.Choices.parse(maps, on_delete))


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text(query))]


@pytest.fixture(params=descendants.DESCENDANTS)
def descendant(request: pytest.FixtureRequest, looking: Connection) -> Sequence[str]:
    """A database of each of the descendants; the options that it needs."""
    descendants.make(looking, descendants.DESCENDANTS[request.param])
    return descendants.MAPS.get(request.param, ())


def test_adopted_database_has_the_tables_of_the_models_and_counts_that_equal_rows(
    descendant: Sequence[str], url: URL, looking: Connection
) -> None:
    adopt(url, *descendant)

    assert version(looking) == HEAD
    assert drift(looking) == []
    assert wrong_counts(looking) == 0
    assert looking.scalar(text("SELECT count(*) FROM posts")) > 0


def test_adopting_again_changes_nothing(
    descendant: Sequence[str], url: URL, engine: Engine, looking: Connection
) -> None:
    adopt(url, *descendant)
    before = contents(looking)

    assert adopt(url) == []

    assert contents(looking) == before
    assert examine(engine).is_adopted


def test_examining_changes_nothing(descendant: Sequence[str], engine: Engine, looking: Connection) -> None:
    before = contents(looking)

    plan = examine(engine, *descendant)

    assert plan.refusals == []
    assert plan.steps != []
    assert contents(looking) == before


def test_new_rows_can_be_written_and_their_ids_follow_the_old(
    descendant: Sequence[str], url: URL, looking: Connection
) -> None:
    highest = {
        table: looking.scalar(text(f'SELECT max({key}) FROM "{name}"'))
        for table, name, key in looking_for_keys(looking)
    }
    adopt(url, *descendant)

    user = looking.scalar(
        text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('n', 'n', '') RETURNING id")
    )
    post = looking.scalar(text(f"INSERT INTO posts (title, content, owner_id) VALUES ('', '', {user}) RETURNING id"))
    looking.execute(text(f"INSERT INTO votes (post_id, user_id) VALUES ({post}, {user})"))

    assert user > highest.get("users", 0)
    assert post > highest["posts"]
    looking.execute(text(f"DELETE FROM users WHERE id = {user}"))
    assert wrong_counts(looking) == 0


def looking_for_keys(connection: Connection) -> list[tuple[str, str, str]]:
    found = connection.execute(
        text("""
            SELECT table_name, column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND lower(table_name) IN ('post', 'posts', 'user', 'users')
                AND column_name IN ('id', 'userid')
        """)
    )
    return [(name.lower().rstrip("s") + "s", name, column) for name, column in found]


def test_all_accounts_with_a_password_keep_it(descendant: Sequence[str], url: URL, looking: Connection) -> None:
    adopt(url, *descendant)

    hashes = looking.scalars(text("SELECT password_hash FROM users WHERE password_hash <> ''")).all()
    assert [passwords.verify(descendants.PASSWORD, each)[0] for each in hashes] == [True] * len(hashes)


def test_alembic_of_their_own_is_replaced_and_their_columns_stay(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)

    adopt(url)

    assert rows(looking, "SELECT id, email, email_canonical, phone_number FROM users ORDER BY id") == [
        (1, "Ada@Example.com", "ada@example.com", "123"),
        (2, "bob@example.com", "bob@example.com", None),
    ]
    assert rows(
        looking, "SELECT id, title, owner_id, votes.votes FROM posts JOIN post_stats votes ON post_id = id"
    ) == [
        (1, "first", 1, 1),
        (9, "second", 2, 2),
    ]
    post = "INSERT INTO posts (title, content, owner_id) VALUES ('', '', 1) RETURNING id"
    assert looking.scalar(text(post)) == 21


def test_spelling_of_an_address_without_content_is_put_aside_and_their_tables_stay(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, descendants.BY_CREATE_ALL)
    plan = examine(engine)
    assert any("duplicate<id>+" in what and what.endswith(": 2") for what, _ in plan.steps)
    assert "rename table comments, whose name is needed, to former_comments" in [what for what, _ in plan.steps]
    assert [note for note in plan.notes if note.startswith("comments.post_id refers to posts")] != []

    adopt(url)

    assert rows(looking, "SELECT id, email_canonical FROM users ORDER BY id") == [
        (1, "ada@example.com"), (2, "duplicate2+ada@example.com"), (3, "bob@example.com"),
    ]  # fmt: skip
    assert rows(looking, "SELECT title, published FROM posts ORDER BY id") == [("first", True), ("draft", False)]
    assert rows(looking, "SELECT post_id, body FROM former_comments") == [(1, "me too")]
    assert rows(looking, "SELECT post_id, owner_id, content FROM comments") == [(1, 3, "me too")]
    indexes = looking.scalars(text("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'ix_%'")).all()
    assert set(indexes) == {"ix_users_id", "ix_posts_title"}  # `ix_users_email` became ours.


def test_addresses_of_two_mailboxes_are_adopted_as_they_are_and_two_spellings_of_one_are_refused(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, descendants.BY_CREATE_ALL)
    looking.exec_driver_sql("""
        DELETE FROM users WHERE id = 2;
        INSERT INTO users (id, email, password) VALUES
            (11, 'straße@example.com', ''), (12, 'strasse@example.com', ''), (13, 'user@bücher.example', ''),
            (14, 'user@xn--bcher-kva.example', '');
        INSERT INTO posts (title, content, owner_id) SELECT 'title', 'content', id FROM users WHERE id > 10
    """)
    (refusal,) = examine(engine).refusals
    assert refusal.startswith("users 13, 14 have the same e-mail address")
    looking.exec_driver_sql("UPDATE users SET email = 'another@bücher.example' WHERE id = 14")

    adopt(url)

    assert rows(looking, "SELECT id, email_canonical FROM users WHERE id > 10 ORDER BY id") == [
        (11, "straße@example.com"), (12, "strasse@example.com"), (13, "user@xn--bcher-kva.example"),
        (14, "another@xn--bcher-kva.example"),
    ]  # fmt: skip


def test_database_of_a_newer_release_is_refused(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    adopt(url)
    looking.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    (refusal,) = examine(engine).refusals

    assert refusal.startswith("this release does not know migration 9999")


def test_constraint_that_happens_to_be_named_as_ours_makes_no_database_ours(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    looking.exec_driver_sql("ALTER TABLE votes RENAME CONSTRAINT votes_post_id_fkey TO votes_posts_fkey")

    adopt(url)

    assert version(looking) == HEAD
    assert drift(looking) == []


def test_posts_without_an_author_belong_to_an_account_without_sign_in(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_HAND)

    adopt(url)

    assert rows(looking, "SELECT title, email FROM posts JOIN users ON users.id = owner_id ORDER BY posts.id") == [
        ("first", "nobody@adopted.invalid"), ("second", "nobody@adopted.invalid"),
    ]  # fmt: skip
    assert passwords.verify("", looking.scalar(text("SELECT password_hash FROM users")))[0] is False


def test_votes_that_cannot_be_are_moved_and_none_is_lost(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.WITHOUT_CONSTRAINTS)

    adopt(url)

    assert rows(looking, "SELECT user_id, post_id FROM votes ORDER BY 1, 2") == [(1, 1), (2, 1)]
    assert rows(looking, "SELECT user_id, post_id FROM former_votes ORDER BY 1, 2") == [
        (1, 1), (1, 1), (2, 77), (99, 1), (None, 2),
    ]  # fmt: skip
    assert rows(looking, "SELECT title, content, email FROM posts JOIN users ON users.id = owner_id ORDER BY 1") == [
        ("first", "", "ada@example.com"), ("second", "two", "nobody@adopted.invalid"),
    ]  # fmt: skip


def test_columns_with_our_names_keep_their_values_which_are_taken_over(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_SQLMODEL)

    adopt(url, *descendants.MAPS["by sqlmodel"])

    assert rows(looking, "SELECT id, username, former_username, role, is_active FROM users ORDER BY id") == [
        (1, "ada", "ada", "user", True),
        (2, "user2", "bob the builder", "user", True),
        (3, "gone", "gone", "user", False),
        (4, "user4", "ADA", "user", True),
    ]
    assert rows(looking, "SELECT title, created_at, updated_at FROM posts WHERE id = 1") == rows(
        looking, "SELECT 'first', timestamptz '2022-03-04 05:06Z', timestamptz '2022-04-04 05:06Z'"
    )
    assert rows(looking, "SELECT user_id FROM votes WHERE created_at = '2022-05-04 05:06Z'") == [(1,)]


def test_profiles_are_taken_over(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_SQLMODEL)
    descendants.make(
        looking,
        """
        ALTER TABLE "User" ADD COLUMN bio text, ADD COLUMN display_name varchar(80);
        UPDATE "User" SET bio = repeat('x', 600), display_name = ' Ada L. ' WHERE id = 1;
        UPDATE "User" SET bio = ' ', display_name = '' WHERE id = 2
        """,
    )

    adopt(url, *descendants.MAPS["by sqlmodel"])

    assert rows(looking, "SELECT display_name, bio, length(former_bio) FROM users ORDER BY id LIMIT 2") == [
        ("Ada L.", "x" * 500, 600), (None, None, 1),
    ]  # fmt: skip
    assert rows(looking, "SELECT user_id, posts FROM user_stats ORDER BY 1") == [(1, 1), (2, 0)]


def test_times_without_a_zone_are_read_in_the_requested_zone(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_SQLMODEL)

    choices = adoption.Choices.parse(descendants.MAPS["by sqlmodel"], [])
    adoption.adopt(url, lambda _: None, tokens_live=timedelta(minutes=30), choices=choices, time_zone="Asia/Tokyo")

    assert rows(looking, "SELECT count(*) FROM users WHERE created_at = '2022-03-03 20:06Z'") == [(4,)]
    assert rows(looking, "SELECT count(*) FROM posts WHERE updated_at = '2022-04-03 20:06Z'") == [(1,)]


def test_additions_are_kept_under_other_names_and_downvotes_become_no_votes(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.GROWN_ON)

    adopt(url)

    assert rows(looking, "SELECT user_id, post_id, dir FROM votes ORDER BY 1, 2") == [(1, 100, 1), (2, 101, 1)]
    assert rows(looking, "SELECT user_id, post_id, dir FROM former_votes ORDER BY 1, 2") == [(2, 100, -1), (2, 101, 1)]
    assert rows(looking, "SELECT data FROM former_sessions") == [("theirs",)]
    assert rows(looking, 'SELECT title, published, "rating in %" FROM posts ORDER BY id') == [
        ("first", True, 5), ("draft", False, 5),
    ]  # fmt: skip
    assert rows(looking, "SELECT email, first_name, phone FROM users ORDER BY id") == [
        ("ada@example.com", "Ada", "1"), ("bob@example.com", "Bob", "2"),
    ]  # fmt: skip
    keys = "SELECT conname FROM pg_constraint WHERE conname ~ '^former' AND contype = 'f'"
    assert rows(looking, keys) == [("former_posts_users_fkey",)]


REFUSED = {
    "users.id is uuid": "ALTER TABLE votes DROP COLUMN user_id; ALTER TABLE posts DROP COLUMN owner_id;"
    " ALTER TABLE users ALTER id DROP DEFAULT, ALTER id TYPE uuid USING gen_random_uuid()",
    "posts.published is text": "ALTER TABLE posts ALTER published DROP DEFAULT, ALTER published TYPE text",
    "users 1, 2 have the same e-mail address": "UPDATE users SET email = 'aDA@example.com' WHERE id = 2",
    "views depend on posts: drop newest": "CREATE VIEW newest AS SELECT id FROM posts",
    "posts has triggers": "CREATE TRIGGER noisy BEFORE UPDATE ON posts"
    " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "votes has no column post_id": "ALTER TABLE votes DROP CONSTRAINT votes_post_id_fkey;"
    " ALTER TABLE votes RENAME post_id TO what",
    "users.email is NULL in 1 row": "ALTER TABLE users ALTER email DROP NOT NULL;"
    " UPDATE users SET email = NULL WHERE id = 2",
    "the primary key of posts is (title)": "ALTER TABLE votes DROP CONSTRAINT votes_post_id_fkey;"
    " ALTER TABLE posts DROP CONSTRAINT posts_pkey, ADD PRIMARY KEY (title)",
    "1 title of more than 100,000": "UPDATE posts SET title = repeat('x', 100001) WHERE id = 1",
    "column posts.version is in the way, and so is former_version": "ALTER TABLE posts ADD version int,"
    " ADD former_version int",
    "there is no table posts": "DROP TABLE votes; DROP TABLE posts",
    "2 posts with an id below 1, which the API cannot serve: 0, -7:": "INSERT INTO posts (id, title, content, owner_id)"
    " VALUES (0, '', '', 1), (-7, '', '', 1)",
    "1 user with an id below 1, which the API cannot serve: -1:": "INSERT INTO users (id, email, password)"
    " VALUES (-1, 'minus@example.com', '')",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_impossible_adoptions_are_refused_before_any_change(
    url: URL, engine: Engine, looking: Connection, reason: str
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    for statement in REFUSED[reason].split("; "):
        looking.exec_driver_sql(statement)
    before = contents(looking)

    refusals = examine(engine).refusals
    assert any(reason in refusal for refusal in refusals), refusals
    with pytest.raises(adoption.CannotAdopt):
        adopt(url)

    assert contents(looking) == before
    assert version(looking) == "5c1d7f0a9be2"
