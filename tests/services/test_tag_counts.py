"""`post_tags` and `tag_stats` equal the posts and follows, whatever writes them; recount, cleanup and deletion."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from app.services import cleanup, deletion, recount
from tests.fixtures import Person
from tests.services.walking import rows

MakePost = Callable[..., int]
MakePerson = Callable[..., Person]
WRONG_TAGS = """
    SELECT 'list of post ' || posts.id FROM posts
    WHERE ARRAY(SELECT DISTINCT tag COLLATE "C" FROM unnest(tags) AS tag ORDER BY 1) IS DISTINCT FROM ARRAY(
            SELECT name FROM post_tags JOIN tags ON id = tag_id WHERE post_id = posts.id ORDER BY name
        ) OR EXISTS (
            SELECT FROM post_tags WHERE post_id = posts.id
                AND (published, created_at) IS DISTINCT FROM (posts.published, posts.created_at)
        )
    UNION ALL
    SELECT 'count of ' || name FROM tags LEFT JOIN tag_stats AS stats ON tag_id = id
    WHERE stats.posts IS DISTINCT FROM (SELECT count(*) FROM posts WHERE published AND name = ANY (tags))
        OR stats.followers IS DISTINCT FROM (SELECT count(*) FROM tag_follows WHERE tag_id = id)
"""


def wrong_tags(connection: Connection) -> list[str]:
    """Return what differs from the posts' tags and the follows."""
    return rows(connection, WRONG_TAGS)


def counted(connection: Connection) -> dict[str, int]:
    found = connection.execute(text("SELECT name, posts FROM tags JOIN tag_stats ON tag_id = id"))
    return {row.name: row.posts for row in found}


@pytest.fixture
def write(connection: Connection, person: Person) -> Callable[..., object]:
    """Run a statement, of which the owner of posts is `:owner`."""
    return lambda statement: connection.execute(text(statement), {"owner": person.id})


@pytest.fixture
def posts(connection: Connection, person: Person) -> list[int]:
    return rows(
        connection,
        """
        INSERT INTO posts (owner_id, title, content, published, tags)
        SELECT :owner, 'title', 'content', n % 3 > 0, ARRAY['all', 'n' || n % 4] FROM generate_series(0, 11) AS n
        RETURNING id
        """,
        owner=person.id,
    )


@pytest.mark.parametrize(
    ("statement", "after"),
    [
        ("SELECT", {"all": 8, "n0": 2, "n1": 2, "n2": 2, "n3": 2}),
        ("UPDATE posts SET title = 'other', version = version + 1", {"all": 8, "n0": 2, "n1": 2, "n2": 2, "n3": 2}),
        ("UPDATE posts SET tags = '{}'", {"all": 0, "n0": 0, "n1": 0, "n2": 0, "n3": 0}),
        ("UPDATE posts SET tags = tags[2:]", {"all": 0, "n0": 2, "n1": 2, "n2": 2, "n3": 2}),
        ("UPDATE posts SET tags = '{new,all,new}'", {"all": 8, "n0": 0, "n1": 0, "n2": 0, "n3": 0, "new": 8}),
        ("UPDATE posts SET published = true", {"all": 12, "n0": 3, "n1": 3, "n2": 3, "n3": 3}),
        ("UPDATE posts SET published = false, tags = '{n0}'", {"all": 0, "n0": 0, "n1": 0, "n2": 0, "n3": 0}),
        ("UPDATE posts SET created_at = created_at - interval '1 day'",
         {"all": 8, "n0": 2, "n1": 2, "n2": 2, "n3": 2}),
        ("DELETE FROM posts WHERE tags[2] = 'n0'", {"all": 6, "n0": 0, "n1": 2, "n2": 2, "n3": 2}),
        ("DELETE FROM posts", {"all": 0, "n0": 0, "n1": 0, "n2": 0, "n3": 0}),
        ("DELETE FROM users", {"all": 0, "n0": 0, "n1": 0, "n2": 0, "n3": 0}),
        ("TRUNCATE posts CASCADE", {"all": 0, "n0": 0, "n1": 0, "n2": 0, "n3": 0}),
        ("UPDATE posts SET id = id WHERE false", {"all": 8, "n0": 2, "n1": 2, "n2": 2, "n3": 2}),
        ("INSERT INTO posts (owner_id, title, content, tags) SELECT owner_id, 't', 'c', '{n0,n0}' FROM posts",
         {"all": 8, "n0": 14, "n1": 2, "n2": 2, "n3": 2}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("posts")
def test_every_write_keeps_lists_and_counts_of_tags(
    write: Callable[..., object], connection: Connection, statement: str, after: dict[str, int]
) -> None:
    write(statement)
    assert counted(connection) == after
    assert wrong_tags(connection) == []


@pytest.mark.usefixtures("posts")
def test_rolled_back_write_leaves_no_tag(database: Engine, connection: Connection) -> None:
    with database.begin() as writing:
        writing.execute(text("UPDATE posts SET tags = '{gone}'"))
        writing.rollback()
    assert "gone" not in counted(connection)
    assert wrong_tags(connection) == []


@pytest.mark.parametrize("tags", ["{NULL}", '{""}', "{" + "x" * 31 + "}"])
def test_name_that_no_tag_may_have_is_refused_by_the_database(make_post: MakePost, person: Person, tags: str) -> None:
    with pytest.raises(IntegrityError):
        make_post(person, tags=tags)


@pytest.mark.usefixtures("posts")
def test_follows_are_counted_whatever_writes_them(
    write: Callable[..., object], connection: Connection, make_person: MakePerson
) -> None:
    for _ in range(3):
        make_person()
    write("INSERT INTO tag_follows (user_id, tag_id) SELECT users.id, tags.id FROM users, tags")
    assert rows(connection, "SELECT DISTINCT followers FROM tag_stats") == [4]
    write("DELETE FROM tag_follows WHERE user_id = :owner AND tag_id IN (SELECT id FROM tags WHERE name = 'all')")
    assert rows(connection, "SELECT followers FROM tag_stats ORDER BY 1") == [3, 4, 4, 4, 4]
    write("DELETE FROM users WHERE id <> :owner")
    assert rows(connection, "SELECT followers FROM tag_stats ORDER BY 1") == [0, 1, 1, 1, 1]
    assert wrong_tags(connection) == []
    write("TRUNCATE tag_follows")
    assert wrong_tags(connection) == []


# Recount

HARMS = {
    "UPDATE tag_stats SET posts = 7 WHERE posts < 3": 0,
    "UPDATE tag_stats SET followers = 7": 0,
    "DELETE FROM tag_stats": 0,
    "DELETE FROM post_tags WHERE published": 8,
    "UPDATE post_tags SET published = NOT published": 12,
    "UPDATE post_tags SET created_at = '2020-01-01Z'": 12,
    "UPDATE posts SET tags = '{all,unknown}'": 12,
    "UPDATE posts SET tags = '{}' WHERE NOT published": 4,
    "DELETE FROM tag_follows": 0,
}


def recounted(*, is_repairing: bool) -> dict[str, int]:
    found = {"posts": 0, "tags": 0}
    for batch in recount.recount(is_repairing=is_repairing, batch_rows=2):
        if batch.table not in found:
            assert batch.wrong == []
            continue
        found[batch.table] += len(batch.wrong)
        assert batch.repaired == len(batch.wrong) or not is_repairing or batch.table == "tags"
    return found


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.usefixtures("posts")
def test_differences_are_found_and_then_repaired(
    database: Engine, connection: Connection, write: Callable[..., object], harm: str
) -> None:
    write("INSERT INTO tag_follows (user_id, tag_id) SELECT users.id, tags.id FROM users, tags")
    assert recounted(is_repairing=False) == {"posts": 0, "tags": 0}
    assert recount.wrong_in_sample(connection, 100) == 0
    with database.begin() as harming:
        harming.execute(text("SET LOCAL session_replication_role = replica"))
        harming.execute(text(harm))

    found = recounted(is_repairing=False)
    assert found["posts"] == HARMS[harm]
    assert sum(found.values()) > 0
    assert recount.wrong_in_sample(connection, 100) > 0
    recounted(is_repairing=True)

    assert wrong_tags(connection) == []
    assert recounted(is_repairing=False) == {"posts": 0, "tags": 0}
    assert recount.wrong_in_sample(connection, 100) == 0


def test_right_rows_are_left_alone(connection: Connection, posts: list[int]) -> None:
    both = "SELECT xmin::text FROM post_tags UNION ALL SELECT xmin::text FROM tag_stats"
    before = sorted(rows(connection, both))
    assert recounted(is_repairing=True) == {"posts": 0, "tags": 0}
    assert sorted(rows(connection, both)) == before
    assert len(before) == 2 * len(posts) + 5


# Cleanup and deletion


@pytest.mark.parametrize("batch_rows", [1, 5_000])
def test_cleanup_removes_only_tags_without_posts_drafts_and_followers(
    make_post: MakePost, person: Person, connection: Connection, write: Callable[..., object], batch_rows: int
) -> None:
    make_post(person, tags=["published"])
    make_post(person, tags=["draft"], published=False)
    former = make_post(person, tags=["unused", "followed", "other"])
    write("INSERT INTO tag_follows (user_id, tag_id) SELECT :owner, id FROM tags WHERE name = 'followed'")
    write(f"DELETE FROM posts WHERE id = {former}")

    assert dict(cleanup.run(batch_rows))["tags"] == 2

    assert sorted(counted(connection)) == ["draft", "followed", "published"]
    assert dict(cleanup.run(batch_rows))["tags"] == 0
    assert wrong_tags(connection) == []


def test_background_removal_of_an_account_takes_its_posts_and_follows_out_of_the_counts(
    connection: Connection, posts: list[int], make_post: MakePost, make_person: MakePerson, person: Person,
    write: Callable[..., object],
) -> None:  # fmt: skip
    make_post(make_person(), tags=["all"])
    write("INSERT INTO tag_follows (user_id, tag_id) SELECT :owner, id FROM tags")
    write("UPDATE users SET is_deleted = true WHERE id = :owner")
    write("INSERT INTO deletions (user_id) VALUES (:owner)")

    assert deletion.work() == 1

    assert counted(connection) == {"all": 1, "n0": 0, "n1": 0, "n2": 0, "n3": 0}
    assert rows(connection, "SELECT user_id FROM tag_follows") == []
    assert wrong_tags(connection) == []
    assert len(posts) == 12
    assert person.id
