"""Constraints of an adopted database: violations are 409, and violations of our own stay 500."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.database.references import own_constraints
from tests.fixtures import PASSWORD, Person

AddRule = Callable[[str], object]
MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
REFUSED = (409, "constraint_violated")
POST = {"title": "first", "content": "one"}
# What is added to `posts`; the second of two posts with one title violates it.
RULES_OF_POSTS = {
    "a constraint": "ADD CONSTRAINT rule UNIQUE (title)",
    "a constraint that is checked at the end": "ADD CONSTRAINT rule UNIQUE (title) DEFERRABLE INITIALLY DEFERRED",
    "an exclusion": "ADD CONSTRAINT rule EXCLUDE (title WITH =)",
    "an index": "CREATE UNIQUE INDEX rule ON posts (lower(title))",
}


@pytest.fixture
def add_rule(connection: Connection) -> Iterator[AddRule]:
    """Change `posts`, `votes` or `users` as `ALTER TABLE` does, and undo it at the end."""
    yield lambda statement: connection.execute(text(statement))
    for table in ("posts", "votes", "users"):
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS rule, DROP COLUMN IF EXISTS rating"))
    connection.execute(text("DROP INDEX IF EXISTS rule"))


def count(connection: Connection, table: str) -> int:
    return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


@pytest.mark.parametrize("rule", RULES_OF_POSTS)
def test_a_unique_rule_of_others_refuses_posts_and_their_changes(
    client: TestClient, connection: Connection, person: Person, add_rule: AddRule, rule: str
) -> None:
    statement = RULES_OF_POSTS[rule]
    add_rule("ALTER TABLE posts " + statement if statement.startswith("ADD") else statement)
    assert client.post("/posts", json=POST, headers=person.headers).status_code == 201
    other = client.post("/posts", json=POST | {"title": "other"}, headers=person.headers)

    again = client.post("/posts", json=POST, headers=person.headers)
    changed = client.patch(f"/posts/{other.json()['id']}", json={"title": "first"}, headers=person.headers)

    for answer in (again, changed):
        assert (answer.status_code, answer.json()["code"]) == REFUSED
        assert "lower" not in answer.text
        assert "first" not in answer.text
    assert connection.scalars(text("SELECT title FROM posts ORDER BY id")).all() == ["first", "other"]


@pytest.mark.parametrize("rule", ["ADD CONSTRAINT rule CHECK (length(title) > 5)", "ADD rating integer NOT NULL"])
def test_a_check_and_a_required_column_of_others_refuse_posts(
    client: TestClient, connection: Connection, person: Person, add_rule: AddRule, rule: str
) -> None:
    add_rule(f"ALTER TABLE posts {rule}")

    answer = client.post("/posts", json=POST, headers=person.headers)

    assert (answer.status_code, answer.json()["code"]) == REFUSED
    assert count(connection, "posts") == 0


def test_a_rule_of_others_refuses_accounts_and_their_changes(
    client: TestClient, connection: Connection, person: Person, add_rule: AddRule
) -> None:
    add_rule("ALTER TABLE users ADD CONSTRAINT rule CHECK (email NOT LIKE '%@banned.example')")
    before = count(connection, "users")

    signed_up = client.post("/users", json={"email": "new@banned.example", "password": "a long enough password"})
    change = {"email": "me@banned.example", "current_password": PASSWORD}
    changed = client.patch("/users/me", json=change, headers=person.headers)

    for answer in (signed_up, changed):
        assert (answer.status_code, answer.json()["code"]) == REFUSED
    assert count(connection, "users") == before
    assert connection.scalar(text("SELECT email FROM users WHERE id = :id"), {"id": person.id}) == person.email


def test_a_rule_of_others_refuses_the_vote_and_no_other_vote_of_its_batch(
    client: TestClient, connection: Connection, make_person: MakePerson, make_post: MakePost, add_rule: AddRule
) -> None:
    author, voters = make_person(), [make_person() for _ in range(6)]
    first, second = make_post(author), make_post(author)
    add_rule("ALTER TABLE votes ADD CONSTRAINT rule UNIQUE (user_id)")
    assert client.put(f"/posts/{first}/vote", headers=voters[0].headers).status_code == 200

    def vote(voter: Person) -> tuple[int, str | None]:
        answer = client.post("/vote", json={"post_id": second, "vote_dir": 1}, headers=voter.headers)
        return answer.status_code, answer.json().get("code")

    with ThreadPoolExecutor(len(voters)) as pool:
        outcomes = list(pool.map(vote, voters))

    assert outcomes == [REFUSED] + [(201, None)] * 5
    refused = client.put(f"/posts/{second}/vote", headers=voters[0].headers)
    assert (refused.status_code, refused.json()["code"]) == REFUSED
    assert count(connection, f"votes WHERE post_id = {second}") == 5
    assert connection.scalar(text(f"SELECT votes FROM post_stats WHERE post_id = {second}")) == 5


def test_a_violated_constraint_of_our_own_stays_a_500(
    client: TestClient, connection: Connection, person: Person
) -> None:
    from tests.contract.answers import assert_documented

    client.event_hooks["response"].remove(assert_documented)
    # Then nothing fills in the search column, which cannot be NULL.
    connection.execute(text("ALTER TABLE posts DISABLE TRIGGER posts_search"))
    try:
        answer = client.post("/posts", json=POST, headers=person.headers)
    finally:
        connection.execute(text("ALTER TABLE posts ENABLE TRIGGER posts_search"))
        client.event_hooks["response"].append(assert_documented)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert count(connection, "posts") == 0


def test_every_constraint_and_unique_index_of_the_migrated_schema_is_known_as_ours(connection: Connection) -> None:
    found = connection.execute(
        text("""
            SELECT conrelid::regclass::text, conname::text FROM pg_constraint
            WHERE connamespace = current_schema()::regnamespace AND contype IN ('p', 'u', 'f', 'c', 'x')
            UNION
            SELECT indrelid::regclass::text, indexrelid::regclass::text FROM pg_index
            JOIN pg_class ON pg_class.oid = indrelid
            WHERE relnamespace = current_schema()::regnamespace AND indisunique
        """)
    )

    assert {tuple(row) for row in found} - own_constraints() - {("alembic_version", "alembic_version_pkc")} == set()
