"""What adoption cannot decide: it refuses, names the option that decides, and obeys the option."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL, Connection, Engine, text

from app import adoption
from app.security import passwords
from tests.fixtures import _server
from tests.migrations import descendants
from tests.migrations.conftest import ROOT, address, contents, version
from tests.migrations.test_adopt_command import run
from tests.migrations.test_descendants import HEAD, adopt, examine, rows

# The users are in a table of an unknown name, to be found by foreign keys only, or by its columns only.
ACCOUNTS = """
    CREATE TABLE accounts (
        account_no serial PRIMARY KEY, login_email text NOT NULL UNIQUE, pass_hash text NOT NULL, nickname text
    );
    CREATE TABLE posts (
        id serial PRIMARY KEY, title varchar NOT NULL, content varchar NOT NULL,
        owner_id integer REFERENCES accounts
    );
    CREATE TABLE votes (
        account_id integer REFERENCES accounts, post_id integer REFERENCES posts, PRIMARY KEY (account_id, post_id)
    );
    INSERT INTO accounts (login_email, pass_hash) VALUES
        ('ada@example.com', 'HASH'), ('bob@example.com', 'HASH'), ('cyd@example.com', 'HASH');
    INSERT INTO posts (title, content, owner_id) VALUES ('first', 'one', 2), ('second', 'two', 3), ('third', '', NULL);
    INSERT INTO votes VALUES (2, 2), (3, 1);
"""
OWNERS = "SELECT title, email FROM posts JOIN users ON users.id = owner_id ORDER BY posts.id"
ALL_OWNERS = [("first", "bob@example.com"), ("second", "cyd@example.com"), ("third", "nobody@adopted.invalid")]


def change(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("has_foreign_keys", [True, False])
def test_people_in_a_table_of_another_name_keep_their_posts_and_votes_and_can_sign_in(
    url: URL, looking: Connection, tmp_path: Path, has_foreign_keys: bool
) -> None:
    descendants.make(looking, ACCOUNTS)
    if not has_foreign_keys:
        change(
            looking,
            "ALTER TABLE posts DROP CONSTRAINT posts_owner_id_fkey",
            "ALTER TABLE votes DROP CONSTRAINT votes_account_id_fkey",
        )

    adopt(url)

    assert rows(looking, OWNERS) == ALL_OWNERS
    assert rows(looking, "SELECT user_id, post_id FROM votes ORDER BY 1") == [(2, 2), (3, 1)]
    assert rows(looking, "SELECT * FROM former_owners") == [(3, None)]
    with _server(tmp_path, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        form = {"username": "cyd@example.com", "password": descendants.PASSWORD}
        signed_in = client.post("/login", data=form)
        assert signed_in.status_code == 200
        client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        assert client.get("/posts/2").json()["Post"]["owner_id"] == 3


# A change to ACCOUNTS, adoption's message, and the option that it requires.
ASKED = {
    "another table called users has people too": (
        ["CREATE TABLE users (id serial, email text, password text)"],
        "posts and votes refer to people in accounts, and users has people too",
        "accounts=users",
    ),
    "no foreign key, and two tables of people": (
        [
            "ALTER TABLE posts DROP CONSTRAINT posts_owner_id_fkey",
            "ALTER TABLE votes DROP CONSTRAINT votes_account_id_fkey",
            "CREATE TABLE admins (id serial, email text, password text)",
        ],
        "people may be in accounts or in admins",
        "admins=ignore",
    ),
    "two columns that may be the owner": (
        ["ALTER TABLE posts RENAME owner_id TO author_id", "ALTER TABLE posts ADD user_id int REFERENCES accounts"],
        "posts.user_id or posts.author_id may be the owner_id",
        "posts.author_id=owner_id",
    ),
    "an owner of an unknown name without a foreign key": (
        ["ALTER TABLE posts DROP CONSTRAINT posts_owner_id_fkey", "ALTER TABLE posts RENAME owner_id TO penned_by"],
        "posts has no column owner_id, but penned_by",
        "posts.penned_by=owner_id",
    ),
    "an e-mail address of an unknown name": (
        ["ALTER TABLE accounts RENAME login_email TO handle"],
        "accounts has no column email, nor one that could be it",
        "accounts.handle=email",
    ),
    "two columns for a password": (
        ["ALTER TABLE accounts ADD password text", "ALTER TABLE accounts RENAME pass_hash TO hashed_password"],
        "accounts.password or accounts.hashed_password may be the password",
        "accounts.hashed_password=password",
    ),
    "a text of an unknown name": (
        ["ALTER TABLE posts RENAME content TO message"],
        "posts has no column content, but message",
        "posts.message=content",
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_unclear_findings_are_asked_about_before_any_change(
    url: URL, engine: Engine, looking: Connection, case: str
) -> None:
    statements, question, option = ASKED[case]
    descendants.make(looking, ACCOUNTS)
    change(looking, *statements)
    before = contents(looking)

    (refusal,) = examine(engine).refusals
    assert refusal.startswith(question)
    assert "--map " in refusal
    for is_dry_run in (True, False):
        with pytest.raises(adoption.CannotAdopt, match=re.escape(question)):
            adopt(url, is_dry_run=is_dry_run)
    assert contents(looking) == before

    adopt(url, option)
    assert rows(looking, OWNERS) == ALL_OWNERS
    hashes = looking.scalars(text("SELECT password_hash FROM users WHERE email LIKE '%@example.com'")).all()
    assert [passwords.verify(descendants.PASSWORD, each)[0] for each in hashes] == [True] * 3


def test_table_of_votes_under_another_name_is_asked_about(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, ACCOUNTS)
    change(looking, "ALTER TABLE votes RENAME TO likes")
    (refusal,) = examine(engine).refusals
    assert refusal.startswith("likes may have the votes: --map likes=votes takes them over")

    adopt(url, "likes=votes")

    assert rows(looking, "SELECT user_id, post_id FROM votes ORDER BY 1") == [(2, 2), (3, 1)]


def test_owners_that_are_gone_are_kept_in_a_table_of_their_own(url: URL, looking: Connection) -> None:
    descendants.make(looking, ACCOUNTS)
    change(
        looking,
        "ALTER TABLE posts DROP CONSTRAINT posts_owner_id_fkey",
        "ALTER TABLE votes DROP CONSTRAINT votes_account_id_fkey",
        "UPDATE posts SET owner_id = 4 WHERE id = 1",
        "INSERT INTO votes VALUES (4, 1)",
    )

    adopt(url)

    # The account that is made gets the id 4, but not the vote of the one that had it.
    assert rows(looking, OWNERS)[0] == ("first", "nobody@adopted.invalid")
    assert rows(looking, "SELECT * FROM former_owners ORDER BY 1") == [(1, 4), (3, None)]
    assert rows(looking, "SELECT user_id, post_id FROM former_votes") == [(4, 1)]
    assert rows(looking, "SELECT user_id, post_id FROM votes ORDER BY 1") == [(2, 2), (3, 1)]


def test_owner_that_refers_to_another_column_than_the_id_is_refused(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, ACCOUNTS)
    change(
        looking,
        "ALTER TABLE accounts ADD number int UNIQUE",
        "UPDATE accounts SET number = 10 - account_no",
        "ALTER TABLE posts DROP CONSTRAINT posts_owner_id_fkey",
        "UPDATE posts SET owner_id = 7",
        "ALTER TABLE posts ADD FOREIGN KEY (owner_id) REFERENCES accounts (number)",
    )

    (refusal,) = examine(engine).refusals

    assert refusal.startswith("posts.owner_id refers to accounts.number, not to accounts.account_no")


def test_owner_that_refers_to_another_table_than_the_mapped_one_is_refused(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, ACCOUNTS)
    change(looking, "CREATE TABLE people (account_no serial PRIMARY KEY, email text, password text)")

    refusals = examine(engine, "people=users", "posts.owner_id=owner_id", "votes.account_id=user_id").refusals

    assert [refusal.partition(":")[0] for refusal in refusals] == [
        "posts.owner_id refers to accounts.account_no, not to people.account_no",
        "votes.account_id refers to accounts.account_no, not to people.account_no",
    ]


FLAGS = {
    "is_blocked boolean": ("NULL", "true"),
    "disabled integer": ("0", "1"),
    "banned boolean": ("false", "true"),
    "is_active boolean": ("true", "false"),
    "is_deleted boolean": ("false", "true"),
    "deleted_at timestamptz": ("NULL", "now()"),
    "suspended_until date": ("'2001-01-01'", "'2999-01-01'"),
    '"Locked" boolean': ("false", "true"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_that_keeps_people_out_is_asked_about_and_obeyed(
    url: URL, engine: Engine, looking: Connection, flag: str
) -> None:
    name = flag.rpartition(" ")[0].strip('"')
    may, may_not = FLAGS[flag]
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, f"ALTER TABLE users ADD {flag}", f"UPDATE users SET {flag.rpartition(' ')[0]} = {may}")
    assert examine(engine).refusals == []
    change(looking, f"UPDATE users SET {flag.rpartition(' ')[0]} = {may_not} WHERE id = 2")

    (refusal,) = examine(engine).refusals
    assert refusal.startswith(f"1 user may not sign in, users.{name} says: --map users.{name}=inactive")
    assert examine(engine, f"users.{name}=ignore").refusals == []
    adopt(url, f"users.{name}=inactive")

    assert rows(looking, "SELECT id, is_active FROM users ORDER BY id") == [(1, True), (2, False)]
    assert rows(looking, "SELECT user_id FROM sessions") == [(1,)]


def test_hidden_posts_are_asked_about_and_made_drafts(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, "ALTER TABLE posts ADD deleted_at timestamptz", "UPDATE posts SET deleted_at = now() WHERE id = 9")
    (refusal,) = examine(engine).refusals
    assert refusal.startswith("1 post should be hidden, posts.deleted_at says: --map posts.deleted_at=unpublished")

    adopt(url, "posts.deleted_at=unpublished")

    assert rows(looking, "SELECT id, published FROM posts ORDER BY id") == [(1, True), (9, False)]
    assert rows(looking, "SELECT post_id FROM former_published") == [(9,)]


def test_votes_of_several_kinds_are_asked_about(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, "ALTER TABLE votes ADD weight int DEFAULT 1", "UPDATE votes SET weight = -1 WHERE user_id = 1")
    (refusal,) = examine(engine).refusals
    assert refusal.startswith("votes.weight may say which votes are against: --map votes.weight=direction")

    adopt(url, "votes.weight=direction")

    assert rows(looking, "SELECT user_id, post_id FROM votes ORDER BY 1, 2") == [(2, 1), (2, 9)]
    assert rows(looking, "SELECT user_id, post_id, weight FROM former_votes") == [(1, 9, -1)]


def test_published_of_more_than_two_values_is_refused(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.GROWN_ON)
    change(looking, "UPDATE posts SET published = 2 WHERE id = 101")

    (refusal,) = examine(engine).refusals

    assert refusal.startswith("posts.published is neither 0 nor 1 in 1 row, and would be lost")


def test_addresses_without_an_at_sign_are_named_and_sign_in(
    url: URL, engine: Engine, looking: Connection, tmp_path: Path
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, "UPDATE users SET email = 'Bob' WHERE id = 2")
    assert any(note.startswith("1 user with an e-mail address without @") and note.endswith(": 2")
               for note in examine(engine).notes)  # fmt: skip

    adopt(url)

    with _server(tmp_path, {"DATABASE_URL": address(url)}) as server:
        form = {"username": "Bob", "password": descendants.PASSWORD}
        assert httpx2.post(f"{server.url}/login", data=form).status_code == 200


COMMENTS = """
    CREATE TABLE comments (
        id serial PRIMARY KEY, post_id integer NOT NULL REFERENCES posts ON UPDATE CASCADE,
        user_id integer REFERENCES users ON DELETE RESTRICT DEFERRABLE
    );
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id serial, comment_id integer REFERENCES comments, buyer integer REFERENCES users);
    INSERT INTO comments (post_id, user_id) VALUES (9, 1);
    INSERT INTO shop.orders (comment_id, buyer) VALUES (1, 1);
"""


def test_foreign_keys_that_forbid_deletions_are_named_and_changed_on_demand(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC + COMMENTS)
    named = [note.partition(" ")[0] for note in examine(engine).notes if "--on-delete" in note]
    assert sorted(named) == ["comments.post_id", "comments.user_id", "shop.orders.buyer"]
    chosen = ["comments.post_id=cascade", "comments.user_id=set-null", "shop.orders.buyer=set-null"]
    # With the comments, rows that refer to them would have to go along.
    (left,) = [note for note in examine(engine, on_delete=chosen).notes if "--on-delete" in note]
    assert left.startswith("shop.orders.comment_id refers to comments")

    adopt(url, on_delete=[*chosen, "shop.orders.comment_id=cascade"])

    keys = "FROM pg_constraint WHERE conrelid = 'former_comments'::regclass AND contype = 'f' ORDER BY conname"
    definitions = rows(looking, f"SELECT pg_get_constraintdef(oid) {keys}")
    assert [definition for (definition,) in definitions] == [
        "FOREIGN KEY (post_id) REFERENCES posts(id) ON UPDATE CASCADE ON DELETE CASCADE",
        "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE SET NULL DEFERRABLE",
    ]
    change(looking, "DELETE FROM users WHERE id = 1", "DELETE FROM posts WHERE id = 9")
    assert rows(looking, "SELECT count(*) FROM shop.orders") == [(0,)]


BAD_OPTIONS = {
    ("--map", "acounts=users"): "there is no table acounts",
    ("--map", "users.is_blokked=inactive"): "users has no column is_blokked",
    ("--map", "users.phone_number=nothing"): "a column of users can be id, email, password, created_at, inactive",
    ("--map", "comments.body=content"): "comments is not the table of users, posts or votes",
    ("--map", "users"): "--map users: give accounts=users, accounts.login=email or the like",
    ("--map", "users=people"): "a table can be users, posts, votes, comments, tags, follows, bookmarks or ignore",
    ("--on-delete", "comments.id=cascade"): "the column has no foreign key to rows",
    ("--on-delete", "comments.post_id=nothing"): "give comments.post_id=cascade or …=set-null",
    ("--on-delete", "comments.post_id=set-null"): "post_id cannot be NULL",
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_option_that_does_not_fit_is_refused(engine: Engine, looking: Connection, option: tuple[str, str]) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC + COMMENTS)
    kind, value = option
    said: list[str]
    try:
        choices = adoption.Choices.parse(*(([value], []) if kind == "--map" else ([], [value])))
    except adoption.MalformedChoice as error:
        said = [str(error)]
    else:
        said = adoption.look(engine, choices).refusals

    assert len(said) == 1
    assert BAD_OPTIONS[option] in said[0]


def test_command_takes_the_options_and_a_dry_run_of_them_changes_nothing(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC + COMMENTS)
    change(looking, "ALTER TABLE users ADD is_blocked boolean", "UPDATE users SET is_blocked = id = 2")
    before = contents(looking)
    malformed = run(url, "--map", "users")
    assert (malformed.returncode, malformed.stderr.count("\n")) == (1, 1)
    options = ("--map", "users.is_blocked=inactive", "--on-delete", "comments.post_id=cascade")

    dry = run(url, "--dry-run", *options)
    assert dry.returncode == 0, dry.stderr
    assert "The database can be adopted; nothing was changed" in dry.stdout
    assert contents(looking) == before
    done = run(url, *options)

    assert done.returncode == 0, done.stderr
    assert version(looking) == HEAD
    assert rows(looking, "SELECT is_active FROM users ORDER BY id") == [(True,), (False,)]


def test_dry_run_fails_where_the_run_fails_and_neither_changes_anything(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(
        looking,
        "CREATE TABLE invoices (address varchar REFERENCES users (email))",
        "CREATE FUNCTION hot_score(votes integer, created_at timestamptz) RETURNS float LANGUAGE sql RETURN 1",
    )
    before = contents(looking)

    failures = []
    for options in (["--dry-run"], []):
        failed = run(url, *options)
        assert failed.returncode == 1
        failures.append(failed.stderr)

    assert failures[0] == failures[1]
    assert "nothing was changed" in failures[0]
    assert contents(looking) == before


def sections() -> Iterator[str]:
    """The SQL blocks of the document, in order."""
    document = (ROOT / "docs" / "adopting.md").read_text(encoding="utf-8")
    yield from re.findall(r"```sql\n(.*?)```", document, re.DOTALL)


UUIDS = """
    CREATE TABLE users (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email varchar NOT NULL UNIQUE, password varchar NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE posts (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title varchar NOT NULL, content varchar NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE
    );
    CREATE TABLE votes (
        user_id uuid REFERENCES users ON DELETE CASCADE, post_id uuid REFERENCES posts ON DELETE CASCADE,
        PRIMARY KEY (user_id, post_id)
    );
    CREATE TABLE comments (id serial PRIMARY KEY, post_id uuid CONSTRAINT comments_post_id_fkey REFERENCES posts);
    INSERT INTO users (email, password, created_at) VALUES
        ('bob@example.com', 'HASH', '2021-02-02Z'), ('ada@example.com', 'HASH', '2021-01-01Z');
    INSERT INTO posts (title, content, owner_id) SELECT 'of ' || email, '', id FROM users;
    INSERT INTO votes SELECT users.id, posts.id FROM users, posts WHERE title <> 'of ' || email;
    INSERT INTO comments (post_id) SELECT id FROM posts WHERE title = 'of ada@example.com';
"""


def test_uuid_keys_are_refused_with_the_reason_and_converted_by_the_documented_sql(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, UUIDS)
    refusals = examine(engine).refusals
    assert len(refusals) == 5
    assert refusals[0].startswith("users.id is uuid, and the API's ids are integers")
    assert all('docs/adopting.md ("UUID keys")' in refusal for refusal in refusals)

    (conversion, reference) = (block for block in sections() if "uuid" in block)
    looking.exec_driver_sql(conversion)
    looking.exec_driver_sql(reference)
    adopt(url)

    assert rows(looking, "SELECT id, email FROM users ORDER BY id") == [
        (1, "ada@example.com"), (2, "bob@example.com"),
    ]  # fmt: skip
    owners = "posts JOIN users AS owner ON owner.id = owner_id"
    assert rows(looking, f"SELECT title FROM {owners} WHERE title <> 'of ' || owner.email") == []
    voters = f"{owners} JOIN votes ON votes.post_id = posts.id JOIN users AS voter ON voter.id = user_id"
    assert rows(looking, f"SELECT title FROM {voters} WHERE title = 'of ' || voter.email") == []
    assert rows(looking, "SELECT count(*) FROM votes") == [(2,)]
    assert rows(looking, "SELECT title FROM former_comments AS theirs JOIN posts ON posts.uuid = theirs.post_id") == [
        ("of ada@example.com",)
    ]


def test_hostile_text_costs_adoption_no_more_than_search_does(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, "UPDATE posts SET content = repeat('a_', 20000)")
    looking.execute(text("CHECKPOINT"))

    started_at = time.monotonic()
    adopt(url)

    assert time.monotonic() - started_at < 10  # Two posts took 20 s and more.
    assert rows(looking, "SELECT count(*) FROM posts WHERE search @@ to_tsquery('simple', 'first')") == [(1,)]


def test_posts_that_only_their_owners_will_see_are_counted_and_named(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    assert not any("published = " in note for note in examine(engine).notes)
    change(looking, "UPDATE posts SET published = false WHERE id = 9")
    assert "1 post has published = false: only its owner and moderators will see it (9)" in examine(engine).notes
    change(looking, "UPDATE posts SET published = false")

    notes = examine(engine).notes

    assert "2 posts have published = false: only their owners and moderators will see them (1, 9)" in notes


def test_posts_that_a_number_hides_are_counted_and_named(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.GROWN_ON)

    assert "1 post has published = 0: only its owner and moderators will see it (101)" in examine(engine).notes


@pytest.mark.parametrize("now", ["CASCADE", "SET NULL", "SET NULL (post_id)", "SET DEFAULT", "RESTRICT"])
def test_key_that_has_an_action_already_is_changed(url: URL, looking: Connection, now: str) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    change(looking, f"CREATE TABLE comments (post_id int CONSTRAINT c REFERENCES posts ON DELETE {now})")

    adopt(url, on_delete=["comments.post_id=set-null"])

    (definition,) = rows(looking, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'c'")
    assert definition == ("FOREIGN KEY (post_id) REFERENCES posts(id) ON DELETE SET NULL",)


def test_set_null_is_offered_only_for_columns_that_can_be_null(engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC + COMMENTS)

    offered = {note.partition(" ")[0]: "set-null" in note for note in examine(engine).notes if "--on-delete" in note}

    assert offered == {"comments.post_id": False, "comments.user_id": True, "shop.orders.buyer": True}


def test_messages_name_tables_as_the_database_does_and_options_can_be_copied(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, ACCOUNTS)
    change(
        looking,
        'ALTER TABLE accounts ADD "is blocked" boolean, ADD is_banned boolean',
        "UPDATE accounts SET is_banned = true, pass_hash = 'plain' WHERE account_no = 2",
        "CREATE TABLE users (id serial, email text, password text)",
    )
    asked, _ = examine(engine).refusals
    assert asked.endswith(": --map accounts=users or --map users=users says which it is")

    plan = examine(engine, "accounts=users")

    (asked,) = plan.refusals
    assert asked.startswith("1 user may not sign in, accounts.is_banned says: --map accounts.is_banned=inactive keeps")
    # What is known of the passwords does not wait for the answer.
    assert any(note.startswith("1 user without a password that bcrypt hashed") for note in plan.notes)
    refused = run(url, "--map", "accounts=users", "--map", "accounts.is blocked=ignore", "--time-zone", "Asia/Tokyo")
    assert refused.returncode == 1
    assert refused.stdout.endswith(
        "run: python -m app adopt --dry-run --map accounts=users --map 'accounts.is blocked=ignore'"
        " --time-zone Asia/Tokyo\n"
    )


def test_missing_column_and_missing_table_are_asked_for_by_options_that_can_be_copied(
    engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, ACCOUNTS)
    change(looking, "ALTER TABLE accounts RENAME login_email TO handle", "ALTER TABLE posts RENAME TO articles")
    (asked,) = examine(engine).refusals
    assert "--map accounts=posts or --map articles=posts or --map votes=posts says which it is" in asked

    (asked,) = examine(engine, "articles=posts").refusals

    options = "--map accounts.handle=email or --map accounts.pass_hash=email or --map accounts.nickname=email says"
    assert options in asked
