"""Generated descendants: a dry run predicts the run, and of what was adopted each row is found again."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app import adoption
from app.security import passwords
from app.services import recount
from tests.fixtures import _server
from tests.migrations.conftest import address, contents, drift
from tests.migrations.descendants import PASSWORD
from tests.migrations.generated import Descendant, generate, quote
from tests.races.conftest import wrong_counts

BLOCK = 20
# Of those that are adopted, each of this many is served, too.
SERVED_EACH = 5


def refusal(url: URL, descendant: Descendant, *, is_dry_run: bool) -> str | None:
    """Adopt it; return why that was refused, if so."""
    choices = adoption.Choices.parse(descendant.maps, descendant.on_delete)
    try:
        adoption.adopt(url, lambda _: None, tokens_live=timedelta(minutes=30), choices=choices, is_dry_run=is_dry_run)
    except adoption.CannotAdopt as error:
        return str(error)
    return None


def state(connection: Connection) -> tuple[object, object]:
    """Return every row, and the position of every sequence."""
    sequences = connection.execute(text("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")).all()
    return contents(connection), sequences


def pairs(connection: Connection, table: str) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row) for row in connection.execute(text(f"SELECT user_id, post_id FROM {table}")))


def in_utc(value: date | None) -> datetime | None:
    """The time that a date or a time without a zone stands for."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


class Known:
    """The rows of a descendant before its adoption.

    Columns have the tutorial's names, or `theirs` and a number.
    """

    def __init__(self, connection: Connection, descendant: Descendant) -> None:
        self.descendant = descendant
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.oids: dict[str, int] = {}
        self.theirs: dict[str, dict[int, str]] = {}
        self.others: dict[int, list[str]] = {}
        tables = {"users": descendant.users, "posts": descendant.posts, "votes": descendant.votes}
        for name, table in tables.items():
            self.rows[name] = []
            if table is None:
                continue
            self.oids[name] = connection.scalar(text("SELECT CAST(:name AS regclass)::oid"), {"name": quote(table)})
            columns = {
                theirs: ours for (of, ours), theirs in descendant.columns.items() if of == name
            }  # fmt: skip
            attributes = self.attributes(connection, self.oids[name])
            self.theirs[name] = {number: column for number, column in attributes.items() if column not in columns}
            for row in connection.exec_driver_sql(f"SELECT * FROM {quote(table)}").mappings():
                known = {ours: row[theirs] for theirs, ours in columns.items()}
                known["theirs"] = {number: str(row[column]) for number, column in self.theirs[name].items()}
                self.rows[name].append(known)
        for oid, table in connection.execute(text("SELECT oid, oid::regclass::text FROM pg_class WHERE relkind = 'r'"
                                                  " AND relnamespace = 'public'::regnamespace")):  # fmt: skip
            if oid not in self.oids.values() and table != "alembic_version":
                self.others[oid] = self.texts(connection, table)
        people, posts = ({row["id"] for row in self.rows[name]} for name in ("users", "posts"))
        self.comments = {row for row in self.found(connection, "comments", "id, post_id, user_id, body")
                         if row[1] in posts and row[2] in people}  # fmt: skip
        self.follows = {row[:2] for row in self.found(connection, "follows", "*")
                        if row[0] != row[1] and {row[0], row[1]} <= people}  # fmt: skip
        self.bookmarks = {row for row in self.found(connection, "bookmarks", "user_id, post_id")
                          if row[0] in people and row[1] in posts}  # fmt: skip
        self.tags = {(post_id, {1: "one", 2: "one", 4: "four"}[tag_id])
                     for post_id, tag_id in self.found(connection, "post_tags", "post_id, tag_id")
                     if post_id in posts and tag_id != 3}  # fmt: skip
        condition = " OR ".join(descendant.blocking) or "false"
        key = descendant.columns.get(("users", "id"))
        self.blocked = set(
            connection.exec_driver_sql(
                f"SELECT {quote(str(key))} FROM {quote(descendant.users)} WHERE {condition}",
                execution_options={"no_parameters": True},
            ).scalars()
            if descendant.users
            else []
        )

    @staticmethod
    def attributes(connection: Connection, oid: int) -> dict[int, str]:
        found = connection.execute(
            text("SELECT attnum, attname FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped"),
            {"oid": oid},
        )
        return {row.attnum: row.attname for row in found}

    @staticmethod
    def texts(connection: Connection, table: str) -> list[str]:
        return list(connection.exec_driver_sql(f"SELECT t::text FROM {table} AS t ORDER BY 1").scalars())

    def check(self, connection: Connection) -> None:
        """Find each row again."""
        for oid, texts in self.others.items():
            table = connection.scalar(text("SELECT CAST(CAST(:oid AS oid) AS regclass)::text"), {"oid": oid})
            assert self.texts(connection, table) == texts
        self.check_users(connection)
        self.check_posts(connection)
        self.check_votes(connection)
        self.check_takeovers(connection)

    def theirs_now(self, connection: Connection, name: str, row: Any) -> dict[int, str]:
        """The values of their columns, by the numbers that these keep."""
        attributes = self.attributes(connection, self.oids[name])
        return {number: str(row[attributes[number]]) for number in self.theirs[name]}

    def check_users(self, connection: Connection) -> None:
        now = {row["id"]: row for row in connection.exec_driver_sql("SELECT * FROM users").mappings()}
        for user in self.rows["users"]:
            found = now.pop(user["id"])
            assert found["email"] in {user["email"], f"duplicate{user['id']}+{user['email']}"}
            assert found["password_hash"] == (user["password"] or "")
            assert in_utc(user.get("created_at")) in {None, found["created_at"]}
            assert found["is_active"] == (user["id"] not in self.blocked)
            assert self.theirs_now(connection, "users", found) == user["theirs"]
        assert {row["email"] for row in now.values()} <= {"nobody@adopted.invalid"}

    def check_posts(self, connection: Connection) -> None:
        people = {user["id"] for user in self.rows["users"]}
        placeholder = connection.scalar(text("SELECT id FROM users WHERE email = 'nobody@adopted.invalid'"))
        has_former = connection.scalar(text("SELECT to_regclass('former_owners')")) is not None
        former: dict[int, int | None] = {}
        if has_former:
            former = {row[0]: row[1] for row in connection.execute(text("SELECT post_id, owner_id FROM former_owners"))}
        now = {row["id"]: row for row in connection.exec_driver_sql("SELECT * FROM posts").mappings()}
        for post in self.rows["posts"]:
            found = now.pop(post["id"])
            assert (found["title"], found["content"]) == (post["title"] or "", post.get("content") or "")
            assert in_utc(post.get("created_at")) in {None, found["created_at"]}
            if "published" in post:
                assert found["published"] == (True if post["published"] is None else bool(post["published"]))
            if (owner := post.get("owner_id")) in people:
                assert found["owner_id"] == owner
                assert post["id"] not in former
            else:
                assert found["owner_id"] == placeholder
                assert "owner_id" not in post or former[post["id"]] == owner
            assert self.theirs_now(connection, "posts", found) == post["theirs"]
        assert now == {}

    def found(self, connection: Connection, table: str, columns: str) -> set[tuple[Any, ...]]:
        """Return the rows, or none if it has no people or no such table."""
        exists = connection.scalar(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table})
        if not exists or not self.descendant.users:
            return set()
        return {tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table}"))}

    def check_takeovers(self, connection: Connection) -> None:
        assert self.found(connection, "comments", "id, post_id, owner_id, content") == self.comments
        assert self.found(connection, "follows", "follower_id, followee_id") == self.follows
        assert self.found(connection, "bookmarks", "user_id, post_id") == self.bookmarks
        assert self.found(connection, "posts", "id, unnest(tags)") == self.tags
        assert recount.wrong_in_sample(connection, 1_000_000) == 0

    def check_votes(self, connection: Connection) -> None:
        has_former = connection.scalar(text("SELECT to_regclass('former_votes')")) is not None
        cast = pairs(connection, "votes")
        assert max(cast.values(), default=1) == 1
        if self.descendant.votes is None:
            assert not cast
            return
        moved = pairs(connection, "former_votes") \
            if has_former else Counter()  # fmt: skip
        assert cast + moved == Counter((vote["user_id"], vote["post_id"]) for vote in self.rows["votes"])
        people = {user["id"] for user in self.rows["users"]}
        posts = {post["id"] for post in self.rows["posts"]}
        direction = next((number for number, name in self.theirs["votes"].items() if name in {"dir", "value"}), None)
        valid = {
            (vote["user_id"], vote["post_id"])
            for vote in self.rows["votes"]
            if vote["user_id"] in people and vote["post_id"] in posts
            and (direction is None or vote["theirs"][direction] == "1")
        }  # fmt: skip
        assert set(cast) == valid


def check_served(url: URL, known: Known, folder: Path) -> None:
    """Assert that one of its users can sign in and read their posts."""
    usual = [user for user in known.rows["users"] if user["password"] and user["id"] not in known.blocked]
    if not usual:
        return
    addresses = Counter(str(user["email"]).lower() for user in known.rows["users"])
    person = next((user for user in usual if addresses[user["email"].lower()] == 1), None)
    if person is None:
        return
    with _server(folder, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        signed_in = client.post("/login", data={"username": person["email"], "password": PASSWORD})
        assert signed_in.status_code == 200, signed_in.text
        client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        for post in known.rows["posts"]:
            if post.get("owner_id") == person["id"]:
                found = client.get(f"/posts/{post['id']}")
                assert found.status_code == 200
                assert found.json()["Post"]["title"] == (post["title"] or "")
                assert found.json()["Post"]["owner_id"] == person["id"]


def check(url: URL, descendant: Descendant, folder: Path | None) -> bool:
    """Return whether the database was adopted; assert that a refusal changed nothing.

    An adoption must have the expected result.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        descendant.create(connection)
        known = Known(connection, descendant)
        before = state(connection)

        predicted = refusal(url, descendant, is_dry_run=True)
        assert state(connection) == before
        happened = refusal(url, descendant, is_dry_run=False)

        assert happened == predicted
        if happened is not None:
            assert state(connection) == before
            return False
        known.check(connection)
        assert drift(connection) == []
        assert wrong_counts(connection) == 0
        hashes = connection.scalars(text("SELECT DISTINCT password_hash FROM users WHERE password_hash <> ''")).all()
        assert all(passwords.verify(PASSWORD, each)[0] for each in hashes)
    if folder is not None:
        check_served(url, known, folder)
    return True


def adopt_generated(make_database: Callable[[], URL], seeds: range, folder: Path) -> None:
    adopted = 0
    for seed in seeds:
        descendant = generate(seed)
        is_served = adopted % SERVED_EACH == 0
        try:
            adopted += check(make_database(), descendant, folder if is_served else None)
        except BaseException:
            print(f"seed {seed}, --map {descendant.maps}, --on-delete {descendant.on_delete}")  # noqa: T201
            print(";\n".join(descendant.statements))  # noqa: T201
            raise
    print(f"{adopted} of {len(seeds)} generated descendants were adopted")  # noqa: T201 - the figure.
    assert adopted >= len(seeds) // 3


def test_generated_descendants_are_adopted_as_predicted_and_nothing_is_lost(
    make_database: Callable[[], URL], tmp_path: Path
) -> None:
    adopt_generated(make_database, range(1_000, 1_002), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, BLOCK))
def test_two_hundred_generated_descendants_are_adopted_as_predicted_and_nothing_is_lost(
    make_database: Callable[[], URL], tmp_path: Path, first: int
) -> None:
    adopt_generated(make_database, range(first, first + BLOCK), tmp_path)
