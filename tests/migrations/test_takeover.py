"""`python -m app adopt` takes over comments, tags, follows and bookmarks of the usual shape, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, Connection, Engine, text

from app import adoption
from app.services import recount
from tests.fixtures import _server
from tests.migrations import descendants
from tests.migrations.conftest import ROOT, address, contents, drift, environment
from tests.migrations.test_descendants import adopt, examine, rows

# Of two users (1, 2) and two posts (1, 9).
COMMENTS = """
    CREATE TABLE comments (
        id serial PRIMARY KEY, post_id integer NOT NULL REFERENCES posts ON DELETE CASCADE,
        user_id integer REFERENCES users ON DELETE SET NULL, body text, created_at timestamp, parent_id integer
    );
    INSERT INTO comments (id, post_id, user_id, body, created_at, parent_id) VALUES
        (3, 1, 2, 'first', '2022-01-02 03:04', NULL), (5, 1, 1, 'reply', NULL, 3), (8, 9, 2, 'another', NULL, NULL);
    SELECT setval('comments_id_seq', 20);
"""
TAKEN = "SELECT id, post_id, parent_id, depth, owner_id, content FROM comments ORDER BY id"


def make(connection: Connection, *statements: str) -> None:
    descendants.make(connection, descendants.BY_ALEMBIC)
    for statement in statements:
        descendants.make(connection, statement)


def planned(engine: Engine, *maps: str) -> list[str]:
    """Return what the plan takes over."""
    plan = examine(engine, *maps)
    assert plan.refusals == []
    return [each.what for each in plan.takeovers]


def notes(engine: Engine, *maps: str) -> list[str]:
    return [note for note in examine(engine, *maps).notes if "taken over" in note]


def assert_counts(connection: Connection) -> None:
    """Compare all counts and lists with the rows, and all tables with the models."""
    assert recount.wrong_in_sample(connection, 1_000_000) == 0
    assert drift(connection) == []


@contextmanager
def served(url: URL, folder: Path, email: str) -> Iterator[httpx2.Client]:
    """A client of a server on the database, signed in."""
    with _server(folder, {"DATABASE_URL": address(url)}) as server, httpx2.Client(base_url=server.url) as client:
        signed_in = client.post("/login", data={"username": email, "password": descendants.PASSWORD})
        assert signed_in.status_code == 200, signed_in.text
        client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        yield client


def test_adopted_comments_are_served_with_replies_authors_times_and_counts(
    url: URL, engine: Engine, looking: Connection, tmp_path: Path
) -> None:
    make(looking, COMMENTS)
    assert planned(engine) == ["take over 3 comments from comments"]

    assert "take over 3 comments from comments" in adopt(url)

    with served(url, tmp_path, "bob@example.com") as client:
        (first,) = client.get("/posts/1/comments").json()
        (reply,) = first["replies"]
        assert (first["id"], first["content"], first["author"]["id"]) == (3, "first", 2)
        assert (first["created_at"], first["updated_at"]) == ("2022-01-02T03:04:00Z",) * 2
        assert (reply["id"], reply["content"], reply["author"]["id"], reply["depth"]) == (5, "reply", 1, 1)
        assert client.get("/posts/1").json()["comments"] == 2
        assert [comment["id"] for comment in client.get("/users/2/comments").json()] == [8, 3]
        assert client.patch("/comments/8", json={"content": "changed"}).status_code == 200
        new = client.post("/posts/1/comments", json={"content": "new", "parent_id": 5})
        assert (new.status_code, new.json()["id"], new.json()["depth"]) == (201, 21, 2)
        assert client.put("/comments/5/vote").status_code == 200
    checked = subprocess.run(
        [sys.executable, "-m", "app", "recount", "--check"],
        cwd=ROOT, env=environment(DATABASE_URL=address(url)), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.stdout == "0 wrong, 0 repaired\n", checked.stderr
    assert rows(looking, "SELECT id, body FROM former_comments ORDER BY id") == [
        (3, "first"), (5, "reply"), (8, "another"),
    ]  # fmt: skip
    assert_counts(looking)


def test_rows_that_cannot_be_comments_are_counted_and_stay(url: URL, engine: Engine, looking: Connection) -> None:
    make(
        looking,
        COMMENTS,
        """
        ALTER TABLE comments DROP CONSTRAINT comments_post_id_fkey, DROP CONSTRAINT comments_user_id_fkey,
            ADD is_deleted boolean, ADD hidden_at timestamptz;
        INSERT INTO comments (id, post_id, user_id, body) VALUES
            (10, 1, NULL, 'of no user'), (11, 1, 3, 'of the later placeholder'), (12, 77, 1, 'on no post'),
            (13, 1, 1, ''), (14, 1, 1, NULL), (15, 1, 1, repeat(' ', 9)), (16, 1, 1, repeat('ü', 10000)),
            (17, 1, 1, repeat('x', 10001)), (-1, 1, 1, 'minus'), (0, 1, 1, 'zero');
        INSERT INTO comments (id, post_id, user_id, body, is_deleted, hidden_at) VALUES
            (18, 1, 1, 'deleted', true, NULL), (19, 1, 1, 'hidden', false, now());
        ALTER TABLE posts ALTER owner_id DROP NOT NULL;
        UPDATE posts SET owner_id = NULL WHERE id = 9
        """,
    )
    before = rows(looking, "SELECT * FROM comments ORDER BY id")
    assert planned(engine) == [
        "take over 4 comments from comments; 3 empty, 1 hidden by hidden_at, 1 hidden by is_deleted,"
        " 1 longer than 10,000 characters, 2 with an id below 1, 3 without an author or post"
        " stay in former_comments only"
    ]

    adopt(url)

    assert rows(looking, "SELECT id FROM users WHERE email = 'nobody@adopted.invalid'") == [(3,)]
    assert [row[0] for row in rows(looking, TAKEN)] == [3, 5, 8, 16]
    assert rows(looking, "SELECT * FROM former_comments ORDER BY id") == before
    assert_counts(looking)


def test_comments_that_are_not_published_stay(url: URL, engine: Engine, looking: Connection) -> None:
    make(
        looking, COMMENTS, "ALTER TABLE comments ADD published boolean, ADD is_approved boolean DEFAULT true",
        "UPDATE comments SET published = id <> 5, is_approved = CASE id WHEN 8 THEN NULL ELSE true END",
    )  # fmt: skip
    assert planned(engine) == [
        "take over 1 comment from comments; 1 hidden by is_approved, 1 hidden by published stay in former_comments only"
    ]

    adopt(url)

    assert [row[0] for row in rows(looking, TAKEN)] == [3]


def test_replies_stay_below_the_nearest_comment_that_is_taken_over(
    url: URL, engine: Engine, looking: Connection
) -> None:
    make(
        looking,
        COMMENTS,
        """
        INSERT INTO comments (id, post_id, user_id, body, parent_id) VALUES
            (21, 1, 1, 'to a missing one', 7), (22, 1, 1, 'to one of another post', 8), (23, 1, 1, 'to itself', 23),
            (24, 1, 1, 'to a later one', 25), (25, 1, 1, 'to one below', 24), (26, 1, 1, '', 5),
            (27, 1, 2, 'to an empty one', 26), (28, 9, 2, '', NULL), (29, 9, 1, 'to an empty top', 28)
        """,
    )
    (plan,) = planned(engine)
    assert plan.endswith("; 4 of them reply to no older comment on their post, and become comments on the post")

    adopt(url)

    assert [(row[0], row[2], row[3]) for row in rows(looking, TAKEN)] == [
        (3, None, 0), (5, 3, 1), (8, None, 0), (21, None, 0), (22, None, 0), (23, None, 0), (24, None, 0), (25, 24, 1),
        (27, 5, 2), (29, None, 0),
    ]  # fmt: skip
    assert_counts(looking)


def test_replies_that_are_too_deep_are_attached_to_the_deepest_comment_that_can_have_replies(
    url: URL, looking: Connection
) -> None:
    chain = "INSERT INTO comments (id, post_id, user_id, body, parent_id) SELECT n, 1, 1, n, n - 1 FROM"
    make(looking, "DELETE FROM votes", COMMENTS, "DELETE FROM comments", f"{chain} generate_series(101, 140) AS n")
    looking.exec_driver_sql("UPDATE comments SET body = '' WHERE id = 134")

    adopt(url)

    found = {row[0]: (row[2], row[3]) for row in rows(looking, TAKEN)}
    assert [found[101], found[102]] == [(None, 0), (101, 1)]
    assert found[132] == (131, 31)
    assert {number: found.get(number) for number in range(133, 141)} == {
        number: None if number == 134 else (132, 32) for number in range(133, 141)
    }
    assert_counts(looking)


# Other tables of the usual shape, with the comment (3, post 1, user 2, 'me too').
USUAL = {
    "by SQLModel, without foreign keys": """
        CREATE TABLE "Comment" (id bigint PRIMARY KEY, "postId" bigint, "authorId" bigint, text varchar(500));
        INSERT INTO "Comment" VALUES (3, 1, 2, 'me too')
    """,
    "with unusual names and foreign keys": """
        CREATE TABLE "COMMENTS" (
            comment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic int REFERENCES posts,
            writer int REFERENCES users, answers_to int REFERENCES "COMMENTS", message text, status varchar DEFAULT 'ok'
        );
        INSERT INTO "COMMENTS" (comment_id, topic, writer, message) OVERRIDING SYSTEM VALUE VALUES (3, 1, 2, 'me too')
    """,
    "with a second account": """
        CREATE TABLE comment (
            id serial PRIMARY KEY, post_id int REFERENCES posts, owner_id int REFERENCES users, comment char(20),
            moderator int REFERENCES users, is_deleted boolean DEFAULT false
        );
        INSERT INTO comment (id, post_id, owner_id, comment, moderator) VALUES (3, 1, 2, 'me too', 1)
    """,
}


@pytest.mark.parametrize("shape", USUAL)
def test_tables_of_usual_shapes_are_taken_over(url: URL, engine: Engine, looking: Connection, shape: str) -> None:
    make(looking, USUAL[shape])
    (plan,) = planned(engine)
    assert plan.startswith("take over 1 comment from ")

    adopt(url)

    assert rows(looking, TAKEN) == [(3, 1, None, 0, 2, "me too")]
    assert looking.scalar(text("SELECT nextval('comments_id_seq')")) == 4


# A change to the table of comments that makes it unclear, and the reason.
UNCLEAR = {
    "ALTER TABLE comments DROP CONSTRAINT comments_pkey": "it has no primary key of one integer",
    "ALTER TABLE comments DROP COLUMN post_id": "it has no column for the post",
    "ALTER TABLE comments DROP COLUMN user_id, ADD nickname text": "it has no column for the author",
    "ALTER TABLE comments ADD author_id int REFERENCES users": "author_id or user_id may refer to users",
    "ALTER TABLE comments DROP CONSTRAINT comments_user_id_fkey, ADD moderator int REFERENCES users":
        "moderator or user_id may refer to users",
    "ALTER TABLE comments ADD reply_to int": "parent_id or reply_to may refer to comments",
    "ALTER TABLE comments ADD text text": "body or text may be the text",
    "ALTER TABLE comments ALTER body TYPE text[] USING ARRAY[body]": "it has no column for the text",
    "ALTER TABLE comments ADD status text; UPDATE comments SET status = id":
        "status may say which are shown; --map comments=comments takes all",
}  # fmt: skip


@pytest.mark.parametrize("change", UNCLEAR)
def test_tables_of_no_usual_shape_stay_and_the_plan_says_why(
    url: URL, engine: Engine, looking: Connection, change: str
) -> None:
    make(looking, COMMENTS, change.replace("; ", ";\n"))
    assert planned(engine) == []
    assert notes(engine) == [f"comments stays, and is not taken over as comments: {UNCLEAR[change]}"]

    adopt(url)

    assert rows(looking, "SELECT count(*) FROM former_comments") == [(3,)]
    assert rows(looking, TAKEN) == []


def test_map_takes_over_a_table_of_any_name_refuses_other_shapes_and_ignores_tables(
    url: URL, engine: Engine, looking: Connection
) -> None:
    make(looking, COMMENTS, "CREATE TABLE notes AS SELECT * FROM comments", "ALTER TABLE notes ADD PRIMARY KEY (id)")
    looking.exec_driver_sql("ALTER TABLE notes ADD status text; UPDATE notes SET status = id, body = 'note ' || id")
    assert planned(engine, "comments=ignore") == []
    assert notes(engine, "comments=ignore") == []
    refusal = examine(engine, "alembic_version=comments").refusals
    assert refusal == ["--map alembic_version=comments: it has no primary key of one integer"]
    assert planned(engine, "notes=comments") == ["take over 3 comments from notes"]

    adopt(url, "notes=comments")

    assert [row[5] for row in rows(looking, TAKEN)] == ["note 3", "note 5", "note 8"]
    assert rows(looking, "SELECT count(*) FROM former_comments") == [(3,)]
    assert rows(looking, "SELECT count(*) FROM notes") == [(3,)]


def test_two_tables_of_comments_are_not_taken_over_without_a_choice(
    url: URL, engine: Engine, looking: Connection
) -> None:
    make(looking, COMMENTS, USUAL["with a second account"])
    assert planned(engine) == []
    (note,) = notes(engine)
    assert note.startswith("comments and comment may both have comments, and neither is taken over: --map ")

    adopt(url, "comment=comments")

    assert rows(looking, TAKEN) == [(3, 1, None, 0, 2, "me too")]


def test_times_of_comments_are_read_in_the_requested_zone(url: URL, looking: Connection) -> None:
    make(looking, COMMENTS, "ALTER TABLE comments ADD updated_at timestamptz",
         "UPDATE comments SET updated_at = '2022-02-01Z' WHERE id = 3")  # fmt: skip

    adoption.adopt(url, lambda _: None, tokens_live=timedelta(minutes=30), time_zone="Asia/Tokyo")

    times = "SELECT created_at = '2022-01-01 18:04Z', updated_at = '2022-02-01Z' FROM comments WHERE id = 3"
    assert rows(looking, times) == [(True, True)]
    assert rows(looking, "SELECT count(*) FROM comments WHERE created_at > now() - interval '1 h'") == [(2,)]


def test_command_lists_takeovers_first_and_a_dry_run_changes_nothing(url: URL, looking: Connection) -> None:
    make(looking, COMMENTS)
    before: Any = contents(looking)

    dry = subprocess.run(
        [sys.executable, "-m", "app", "adopt", "--dry-run"],
        cwd=ROOT, env=environment(DATABASE_URL=address(url)), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert dry.returncode == 0, dry.stderr
    assert "besides users, posts and votes\n  - take over 3 comments from comments\n" in dry.stdout
    assert "s  take over 3 comments from comments\n" in dry.stdout
    assert contents(looking) == before


TAGS = """
    CREATE TABLE tags (id serial PRIMARY KEY, name varchar UNIQUE);
    CREATE TABLE post_tags (
        post_id integer REFERENCES posts ON DELETE CASCADE, tag_id integer REFERENCES tags,
        PRIMARY KEY (post_id, tag_id)
    );
    INSERT INTO tags (name) VALUES
        ('Food'), ('food'), ('Straße'), ('two words'), ('null'), ('e'), ('f'), ('g'), (repeat('x', 31)), (NULL);
    INSERT INTO post_tags VALUES
        (9, 2), (1, 5), (1, 2), (1, 4), (1, 1), (1, 3), (1, 8), (1, 7), (1, 6), (1, 9), (1, 10);
"""


def test_adopted_tags_are_served_and_posts_stay_as_they_were(
    url: URL, engine: Engine, looking: Connection, tmp_path: Path
) -> None:
    make(looking, TAGS)
    assert planned(engine) == [
        "take over the tags of 2 posts from tags and post_tags, of 1 post the first 5; 3 names that cannot be tags stay"
        " in former_tags only"
    ]

    adopt(url)

    assert rows(looking, "SELECT id, tags, version, updated_at = created_at FROM posts ORDER BY id") == [
        (1, ["null", "food", "strasse", "g", "f"], 1, True), (9, ["food"], 1, True),
    ]  # fmt: skip
    with served(url, tmp_path, "bob@example.com") as client:
        assert [post["Post"]["id"] for post in client.get("/posts", params={"tag": "food"}).json()] == [9, 1]
        tags = {tag["name"]: tag["posts"] for tag in client.get("/tags").json()}
        assert tags == {"null": 1, "food": 2, "strasse": 1, "g": 1, "f": 1}
    assert rows(looking, "SELECT count(*) FROM former_tags JOIN former_post_tags ON tag_id = id") == [(11,)]
    assert_counts(looking)


# Other tables or columns of tags, of which post 9 has `b` and `a`.
USUAL_TAGS = {
    "SQLModel": """
        CREATE TABLE "Tag" (id bigint PRIMARY KEY, title text);
        CREATE TABLE "PostTagLink" (post_id bigint, tag_id bigint);
        INSERT INTO "Tag" VALUES (1, 'a'), (2, 'B');
        INSERT INTO "PostTagLink" VALUES (9, 2), (9, 1), (77, 1), (9, 7)
    """,
    "own key and unusual names": """
        CREATE TABLE tag (no serial PRIMARY KEY, label text);
        CREATE TABLE labelling (id int PRIMARY KEY, topic int REFERENCES posts, label int REFERENCES tag);
        INSERT INTO tag (label) VALUES ('a'), ('b');
        INSERT INTO labelling VALUES (2, 9, 1), (1, 9, 2)
    """,
    "array of text": """
        ALTER TABLE posts ADD tags text[];
        UPDATE posts SET tags = '{B,a,b,"it''s, {no} tag",NULL}' WHERE id = 9
    """,
    "array of varchar": """
        ALTER TABLE posts ADD tags varchar(20)[] DEFAULT '{}' NOT NULL;
        UPDATE posts SET tags = '{b,a}' WHERE id = 9
    """,
}


@pytest.mark.parametrize("shape", USUAL_TAGS)
def test_tags_of_usual_shapes_are_taken_over(url: URL, engine: Engine, looking: Connection, shape: str) -> None:
    make(looking, USUAL_TAGS[shape])
    (plan,) = planned(engine)
    assert plan.startswith("take over the tags of 1 post from ")

    adopt(url)

    assert rows(looking, "SELECT id, tags FROM posts ORDER BY id") == [(1, []), (9, ["b", "a"])]
    assert_counts(looking)


UNCLEAR_TAGS = {
    "DROP TABLE post_tags": "no table may link posts to them",
    "CREATE TABLE also (post_id int REFERENCES posts, tag_id int REFERENCES tags)":
        "post_tags and also may link posts to them",
    "ALTER TABLE tags ADD title text": "name or title may be the name",
    "ALTER TABLE tags ADD is_deleted bool; UPDATE tags SET is_deleted = id = 1":
        "tags.is_deleted may say which are shown; --map tags=tags takes all",
}  # fmt: skip


@pytest.mark.parametrize("change", UNCLEAR_TAGS)
def test_tags_of_no_usual_shape_stay_and_the_plan_says_why(
    url: URL, engine: Engine, looking: Connection, change: str
) -> None:
    make(looking, TAGS, change.replace("; ", ";\n"))
    assert planned(engine) == []
    assert notes(engine) == [f"tags stays, and is not taken over as tags: {UNCLEAR_TAGS[change]}"]

    adopt(url)

    assert rows(looking, "SELECT DISTINCT tags FROM posts") == [([],)]


def test_array_of_tags_is_not_taken_over_beside_a_table_or_if_ignored(engine: Engine, looking: Connection) -> None:
    make(looking, TAGS, USUAL_TAGS["array of varchar"])
    (plan,) = planned(engine)
    assert plan.startswith("take over the tags of 2 posts from tags and post_tags")
    assert notes(engine) == ["posts.tags becomes former_tags, and is not taken over, because a table has tags, too"]
    assert planned(engine, "tags=ignore", "posts.tags=ignore") == []


FOLLOWS = """
    INSERT INTO users (id, email, password) VALUES (3, 'cyd@example.com', 'HASH');
    CREATE TABLE followers (
        id serial PRIMARY KEY, follower_id integer REFERENCES users, followed_id integer REFERENCES users,
        created_at timestamp
    );
    INSERT INTO followers (follower_id, followed_id, created_at) VALUES
        (2, 1, '2022-01-02'), (3, 1, NULL), (1, 1, NULL), (2, 1, '2022-01-01'), (2, 3, NULL), (NULL, 1, NULL);
"""


def test_adopted_follows_are_served(url: URL, engine: Engine, looking: Connection, tmp_path: Path) -> None:
    make(looking, FOLLOWS)
    assert planned(engine) == [
        "take over 3 follows from followers; 1 of missing accounts, 1 of themselves, 1 repeated stay in followers only"
    ]

    adopt(url)

    with served(url, tmp_path, "bob@example.com") as client:
        assert [user["id"] for user in client.get("/users/2/following").json()] == [3, 1]
        assert {user["id"] for user in client.get("/users/1/followers").json()} == {2, 3}
        profile = client.get("/users/1").json()
        assert (profile["followers"], profile["following"]) == (2, 0)
    assert rows(looking, "SELECT followee_id FROM follows WHERE created_at = '2022-01-01Z'") == [(1,)]
    assert rows(looking, "SELECT count(*) FROM followers") == [(6,)]
    assert_counts(looking)


# Columns of a table `follows` that has the row (1, 2), and whether 1 follows 2.
DIRECTIONS = {
    '"followerId" int, "followingId" int': True,
    "follower int REFERENCES users, followee int REFERENCES users": True,
    "follower_id int, user_id int": True,
    "user_id int REFERENCES users, followed_by int REFERENCES users": False,
    "user_id int, friend_id int": False,
    "follower_id int, followed_id int, user_id int": False,
    "follower_id int, followed_id int, accepted bool": False,
    "follower_id int, followed_id int, created_at timestamptz, updated_at timestamptz": True,
    "follower_id int, followed_id int, deleted_at timestamptz": False,
    "follower_id int, followed_id int REFERENCES posts": False,
    "follower_id int, followed_id text": False,
}


@pytest.mark.parametrize("columns", DIRECTIONS)
def test_follows_are_taken_over_only_if_the_direction_is_clear(
    url: URL, engine: Engine, looking: Connection, columns: str
) -> None:
    make(looking, f"CREATE TABLE follows ({columns})", "INSERT INTO posts VALUES (2, '', '', true, now(), 1)")
    looking.exec_driver_sql("INSERT INTO follows VALUES (1, 2)")
    assert planned(engine) == (["take over 1 follow from follows"] if DIRECTIONS[columns] else [])
    assert len(notes(engine)) == (0 if DIRECTIONS[columns] else 1)

    adopt(url)

    taken = [(1, 2)] if DIRECTIONS[columns] else []
    assert rows(looking, "SELECT follower_id, followee_id FROM follows") == taken
    assert rows(looking, "SELECT count(*) FROM former_follows") == [(1,)]


def test_map_takes_over_all_follows_in_spite_of_another_column(url: URL, looking: Connection) -> None:
    make(looking, FOLLOWS, "ALTER TABLE followers ADD close boolean")

    adopt(url, "followers=follows")

    assert rows(looking, "SELECT count(*) FROM follows") == [(3,)]


BOOKMARKS = """
    CREATE TABLE {} (user_id integer REFERENCES users, post_id integer, saved_at timestamptz, created_at timestamptz);
    INSERT INTO {} (user_id, post_id) VALUES (2, 1), (2, 1), (1, 9), (1, 77), (NULL, 1);
"""


def test_adopted_bookmarks_are_served(url: URL, engine: Engine, looking: Connection, tmp_path: Path) -> None:
    make(looking, BOOKMARKS.replace("{}", "bookmarks"))
    assert planned(engine) == [
        "take over 2 bookmarks from bookmarks; 2 of missing posts or accounts, 1 repeated stay in former_bookmarks only"
    ]

    adopt(url)

    with served(url, tmp_path, "bob@example.com") as client:
        (post,) = client.get("/users/me/bookmarks").json()
        assert (post["Post"]["id"], post["bookmarked"]) == (1, True)
    assert rows(looking, "SELECT count(*) FROM former_bookmarks") == [(5,)]
    assert_counts(looking)


@pytest.mark.parametrize(("table", "is_taken"), [("saved_posts", True), ('"SavedPost"', True), ("favorites", False)])
def test_bookmarks_of_other_names_are_taken_over_if_they_are_clear(
    url: URL, looking: Connection, table: str, is_taken: bool
) -> None:
    make(looking, BOOKMARKS.replace("{}", table))

    adopt(url)

    assert rows(looking, "SELECT user_id, post_id FROM bookmarks ORDER BY 1") == ([(1, 9), (2, 1)] if is_taken else [])


def test_bookmarks_are_not_asked_about_as_votes(url: URL, engine: Engine, looking: Connection) -> None:
    make(
        looking,
        """
        DROP TABLE votes;
        CREATE TABLE bookmarks (
            user_id int REFERENCES users, post_id int REFERENCES posts, PRIMARY KEY (user_id, post_id)
        );
        INSERT INTO bookmarks VALUES (1, 9)
        """,
    )
    assert planned(engine) == ["take over 1 bookmark from bookmarks"]

    adopt(url)

    assert rows(looking, "SELECT user_id, post_id FROM bookmarks") == [(1, 9)]
    assert rows(looking, "SELECT count(*) FROM votes") == [(0,)]
