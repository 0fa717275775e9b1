"""Comments: replies, deletions and votes at the same time leave a consistent tree and right counts."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database import comment_removal, deletion_marks
from app.services import deletion, recount
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until_blocked

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
MakeComment = Callable[..., int]
TOMBSTONES_WITHOUT_REPLIES = """
    comments AS parent WHERE deleted_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM comments WHERE post_id = parent.post_id AND parent_id = parent.id
    )
"""


def wrong_counts() -> list[tuple[str, list[int]]]:
    return [(batch.table, batch.wrong) for batch in recount.recount(is_repairing=False) if batch.wrong]


def sent_while(
    database: Engine, connection: Connection, change: Callable[[Session], None], call: Callable[[], httpx2.Response]
) -> httpx2.Response:
    """Return the answer to a call that has to wait for a change that another transaction makes meanwhile."""
    with Session(database) as session, session.begin():
        change(session)
        answer = in_background(call)
        wait_until_blocked(connection, by=session.connection())
    return answer()


def removing(*ids: int) -> Callable[[Session], None]:
    return lambda session: comment_removal.remove(session, ids, comment_removal.lock_paths(session, ids))


@pytest.fixture
def post_id(make_post: MakePost, person: Person) -> int:
    return make_post(person)


@pytest.mark.parametrize("has_reply", [False, True])
def test_reply_to_a_comment_that_is_being_deleted_is_404(
    client: TestClient, database: Engine, connection: Connection, person: Person, post_id: int,
    make_comment: MakeComment, has_reply: bool,
) -> None:  # fmt: skip
    parent = make_comment(person, post_id)
    if has_reply:
        make_comment(person, post_id, parent_id=parent)
    body = {"content": "x", "parent_id": parent}

    answer = sent_while(
        database, connection, removing(parent),
        lambda: client.post(f"/posts/{post_id}/comments", json=body, headers=person.headers),
    )  # fmt: skip

    assert answer.status_code == 404
    assert count(connection, "comments") == 2 * has_reply
    assert wrong_counts() == []


def test_comment_with_a_reply_under_way_becomes_a_tombstone(
    client: TestClient, database: Engine, connection: Connection, person: Person, post_id: int,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    parent = make_comment(person, post_id)

    def reply(session: Session) -> None:
        values = {"post": post_id, "parent": parent, "owner": person.id}
        session.execute(
            text("""
                INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
                VALUES (:post, :parent, :owner, 'x', 1)
            """),
            values,
        )

    answer = sent_while(
        database, connection, reply, lambda: client.delete(f"/comments/{parent}", headers=person.headers)
    )

    assert answer.status_code == 204
    assert count(connection, "comments WHERE id = :id AND deleted_at IS NOT NULL", id=parent) == 1
    assert count(connection, "comments") == 2
    assert wrong_counts() == []


def test_last_reply_that_is_deleted_with_its_parent_leaves_no_tombstone(
    client: TestClient, database: Engine, connection: Connection, person: Person, post_id: int,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    top = make_comment(person, post_id)
    parent = make_comment(person, post_id, parent_id=top)
    reply = make_comment(person, post_id, parent_id=parent)
    assert client.delete(f"/comments/{top}", headers=person.headers).status_code == 204

    answer = sent_while(
        database, connection, removing(parent),
        lambda: client.delete(f"/comments/{reply}", headers=person.headers),
    )  # fmt: skip

    assert answer.status_code == 204
    assert count(connection, "comments") == count(connection, "comment_stats") == 0
    assert wrong_counts() == []


def test_vote_for_a_comment_that_is_being_deleted_is_404(
    client: TestClient, database: Engine, connection: Connection, person: Person, post_id: int,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    buried, gone = make_comment(person, post_id), make_comment(person, post_id)
    make_comment(person, post_id, parent_id=buried)
    for comment_id in (buried, gone):
        answer = sent_while(
            database, connection, removing(comment_id),
            partial(client.put, f"/comments/{comment_id}/vote", headers=person.headers),
        )  # fmt: skip
        assert answer.status_code == 404
    assert count(connection, "comment_votes") == 0


def test_second_deletion_at_the_same_time_is_404(
    client: TestClient, database: Engine, connection: Connection, person: Person, post_id: int,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    own = make_comment(person, post_id)
    make_comment(person, post_id, parent_id=own)

    answer = sent_while(
        database, connection, removing(own), lambda: client.delete(f"/comments/{own}", headers=person.headers)
    )

    assert answer.status_code == 404
    assert count(connection, "comments WHERE version = 2") == 1


@pytest.mark.parametrize("what", ["author", "post", "owner of the post"])
def test_comment_on_a_post_or_of_an_account_that_is_being_deleted_is_refused(
    client: TestClient, database: Engine, connection: Connection, person: Person, make_person: MakePerson,
    post_id: int, what: str,
) -> None:  # fmt: skip
    author = make_person()

    def mark(session: Session) -> None:
        if what == "post":
            session.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": post_id})
            deletion_marks.mark_post(session, post_id)
        else:
            session.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": post_id})
            deletion_marks.mark_account(session, author.id if what == "author" else person.id)

    answer = sent_while(
        database, connection, mark,
        lambda: client.post(f"/posts/{post_id}/comments", json={"content": "x"}, headers=author.headers),
    )  # fmt: skip

    assert answer.status_code == (401 if what == "author" else 404)
    assert count(connection, "comments") == 0


def test_a_request_in_flight_of_a_demoted_moderator_deletes_no_comment(
    client: TestClient, database: Engine, connection: Connection, make_person: MakePerson, person: Person, post_id: int,
    make_comment: MakeComment,
) -> None:  # fmt: skip
    moderator, own = make_person(role="moderator"), make_comment(person, post_id)

    with Session(database) as holding, holding.begin():
        holding.execute(text("SELECT FROM comments FOR UPDATE"))
        answer = in_background(lambda: client.delete(f"/comments/{own}", headers=moderator.headers))
        wait_until_blocked(connection, by=holding.connection())
        connection.execute(text("UPDATE users SET role = 'user' WHERE id = :id"), {"id": moderator.id})

    assert answer().status_code == 403
    assert count(connection, "comments WHERE owner_id IS NOT NULL") == 1


def test_votes_by_one_user_at_the_same_time_count_once(
    crowd: Crowd, connection: Connection, person: Person, post_id: int, make_comment: MakeComment
) -> None:
    own = make_comment(person, post_id)

    answers = crowd.send([Call("PUT", f"/comments/{own}/vote", person) for _ in range(20)])

    assert [answer.json() for answer in answers] == [{"comment_id": own, "votes": 1, "voted": True}] * 20
    assert count(connection, "comment_votes") == 1
    assert wrong_counts() == []


def test_deletions_of_a_whole_thread_at_the_same_time_leave_nothing(
    crowd: Crowd, connection: Connection, make_person: MakePerson, post_id: int, make_comment: MakeComment
) -> None:
    ended = deadlocks(connection)
    authors = [make_person() for _ in range(5)]
    draw = random.Random(3)
    owned: list[tuple[int, Person]] = []
    for number in range(60):
        parent_id = draw.choice(owned)[0] if number > 2 else None
        author = draw.choice(authors)
        owned.append((make_comment(author, post_id, parent_id=parent_id), author))
    draw.shuffle(owned)

    answers = crowd.send([Call("DELETE", f"/comments/{comment_id}", author) for comment_id, author in owned])

    assert statuses(answers) == {204: 60}
    assert count(connection, "comments") == 0
    assert wrong_counts() == []
    assert deadlocks(connection) == ended


def test_replies_votes_and_deletions_of_everything_leave_right_counts(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost, make_comment: MakeComment
) -> None:
    ended = deadlocks(connection)
    people = [make_person() for _ in range(12)]
    posts = [make_post(people[number]) for number in range(4)]
    draw = random.Random(5)
    owned: list[tuple[int, int, Person]] = []
    for number in range(60):
        post_id = posts[number % 4]
        below = [comment_id for comment_id, of_post, _ in owned if of_post == post_id]
        author = draw.choice(people)
        parent_id = draw.choice(below) if below and number % 3 else None
        owned.append((make_comment(author, post_id, parent_id=parent_id), post_id, author))
    calls: list[Call] = []
    for comment_id, post_id, author in owned:
        body: dict[str, Any] = {"content": "x", "parent_id": comment_id}
        calls += [Call("POST", f"/posts/{post_id}/comments", draw.choice(people), body) for _ in range(2)]
        calls += [Call("PUT", f"/comments/{comment_id}/vote", draw.choice(people)) for _ in range(2)]
        calls += [Call("DELETE", f"/comments/{comment_id}/vote", draw.choice(people))]
        calls += [Call("PUT", f"/posts/{post_id}/vote", draw.choice(people))]
        calls += [Call("DELETE", f"/comments/{comment_id}", author)] * draw.choice((0, 1))
        calls += [Call("PATCH", f"/comments/{comment_id}", author, {"content": "y"})]
    draw.shuffle(calls)
    half = len(calls) // 2
    calls[half:half] = [
        Call("DELETE", f"/posts/{posts[0]}", people[0]),
        *(Call("DELETE", "/users/me", leaver) for leaver in people[6:9]),
    ]

    working = in_background(lambda: [deletion.work() for _ in range(20)])
    answers = crowd.send(calls)
    working()
    deletion.work()

    assert set(statuses(answers)) <= {200, 201, 204, 401, 403, 404}
    assert count(connection, "users WHERE is_deleted") == count(connection, "posts WHERE id = :id", id=posts[0]) == 0
    assert count(connection, "comments") > 20
    assert count(connection, TOMBSTONES_WITHOUT_REPLIES) == 0
    assert wrong_counts() == []
    assert deadlocks(connection) == ended


def test_a_post_and_an_account_with_many_comments_are_removed_in_batches(
    client: TestClient, connection: Connection, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    commenter = make_person()
    posts = [make_post(person) for _ in range(3)]
    # Each comment of the commenter has a reply, by the same person for every second one.
    for statement in (
        """
        INSERT INTO comments (post_id, owner_id, content)
        SELECT post, :commenter, 'x' FROM unnest(CAST(:posts AS bigint[])) AS post, generate_series(1, 700)
        """,
        "INSERT INTO comment_votes (comment_id, user_id) SELECT id, :other FROM comments",
        """
        INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
        SELECT post_id, id, CASE WHEN id % 2 = 0 THEN :commenter ELSE :other END, 'x', 1 FROM comments
        """,
    ):
        connection.execute(text(statement), {"posts": posts, "commenter": commenter.id, "other": person.id})

    assert client.delete(f"/posts/{posts[0]}", headers=person.headers).status_code == 204
    assert client.get(f"/posts/{posts[0]}", headers=person.headers).status_code == 404
    assert client.delete("/users/me", headers=commenter.headers).status_code == 204
    assert deletion.work() == 2

    assert count(connection, "posts") == 2
    assert count(connection, "comments WHERE owner_id IS NULL") == 700
    assert count(connection, "comments WHERE owner_id = :id", id=person.id) == 700
    assert count(connection, "comments") == count(connection, "comment_stats") == 1_400
    assert count(connection, TOMBSTONES_WITHOUT_REPLIES) == 0
    assert wrong_counts() == []


def test_votes_for_one_comment_are_removed_in_batches(
    client: TestClient, connection: Connection, make_person: MakePerson, post_id: int, make_comment: MakeComment
) -> None:
    author = make_person()
    popular = make_comment(author, post_id)
    connection.execute(
        text("""
            WITH voters AS (
                INSERT INTO users (email, email_canonical, password_hash)
                SELECT 'voter' || n, 'voter' || n, '' FROM generate_series(1, 6000) AS n RETURNING id
            )
            INSERT INTO comment_votes (comment_id, user_id) SELECT :id, id FROM voters
        """),
        {"id": popular},
    )

    assert client.delete("/users/me", headers=author.headers).status_code == 204
    assert deletion.work() == 1

    assert count(connection, "comments") == count(connection, "comment_votes") == 0
    assert wrong_counts() == []
