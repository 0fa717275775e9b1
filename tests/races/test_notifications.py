"""Notifications under concurrency: none is lost or doubled, none is left of a deleted account, no deadlock."""

import random
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from app.models.base import LARGEST_KEY
from app.services import deletion
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd, count, deadlocks, statuses
from tests.races.waiting import in_background, wait_until, wait_until_blocked

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
MakeComment = Callable[..., int]


def reply(author: Person, post_id: int, parent_id: int | None = None, content: str = "text") -> Call:
    return Call("POST", f"/posts/{post_id}/comments", author, {"content": content, "parent_id": parent_id})


def delete(person: Person) -> Call:
    return Call("DELETE", "/users/me", person)


def assert_no_deadlock(connection: Connection, before: int) -> None:
    time.sleep(1.2)  # PostgreSQL counts a deadlock a second after it at most.
    assert deadlocks(connection) == before


def test_comments_at_once_notify_once_each(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost, make_comment: MakeComment
) -> None:
    owner, author = make_person(), make_person()
    post_id = make_post(owner)
    parent = make_comment(author, post_id)
    people = [make_person() for _ in range(12)]

    answers = crowd.send([reply(person, post_id, parent) for person in people for _ in range(2)])

    assert statuses(answers) == {201: 24}
    for user, kind in ((owner, "comment"), (author, "reply")):
        assert count(connection, "notifications WHERE user_id = :id AND kind = :kind", id=user.id, kind=kind) == 24
    assert count(connection, "notifications") == 48
    assert count(connection, "events WHERE kind = 'notification'") == 48
    assert count(connection, "events WHERE kind = 'comment'") == 24


def test_the_same_comment_sent_twice_at_once_notifies_once(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    post_id = make_post(make_person())
    call = Call("POST", f"/posts/{post_id}/comments", make_person(), {"content": "c"}, {"Idempotency-Key": "1"})
    assert set(statuses(crowd.send([call] * 10))) <= {201, 409}
    assert count(connection, "comments") == count(connection, "notifications") == 1


@pytest.mark.parametrize("is_author", [True, False])
def test_account_deleted_while_a_reply_to_it_is_written_gets_nothing(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost,
    make_comment: MakeComment, *, is_author: bool,
) -> None:  # fmt: skip
    """The reply has written its notification, and waits for the count of the post."""
    leaver, other, author = make_person(), make_person(), make_person()
    post_id = make_post(other if is_author else leaver)
    parent = make_comment(leaver if is_author else other, post_id)
    with database.begin() as holder:
        holder.execute(text("SELECT FROM post_stats WHERE post_id = :id FOR UPDATE"), {"id": post_id})
        replying = in_background(lambda: crowd.send([reply(author, post_id, parent)]))
        wait_until_blocked(connection, by=holder)
        leaving = in_background(lambda: crowd.send([delete(leaver)]))
        time.sleep(0.3)

    assert statuses(replying()) == {201: 1}
    assert statuses(leaving()) == {204: 1}
    assert deletion.work() == 1
    assert count(connection, "notifications WHERE user_id = :id", id=leaver.id) == 0
    assert count(connection, "users WHERE id = :id", id=leaver.id) == 0
    assert count(connection, "notifications") == is_author  # That of the post's owner, about the reply.


def test_two_accounts_with_notifications_of_each_other_are_deleted_at_once_without_a_deadlock(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson
) -> None:
    before = deadlocks(connection)
    ada, bob = make_person(username="ada"), make_person(username="bob")
    for author, content in ((ada, "@bob"), (bob, "@ada")):
        mention = Call("POST", "/posts", author, {"title": "title", "content": content})
        assert statuses(crowd.send([mention])) == {201: 1}
    with database.begin() as holder:
        # The notification that is Bob's and of a post of Ada's.
        holder.execute(text("SELECT FROM notifications WHERE user_id = :id FOR UPDATE"), {"id": bob.id})
        first = in_background(lambda: crowd.send([delete(ada)]))
        wait_until_blocked(connection, by=holder)
        second = in_background(lambda: crowd.send([delete(bob)]))
        wait_until(connection, "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")

    assert (statuses(first()), statuses(second())) == ({204: 1}, {204: 1})
    assert count(connection, "notifications") == 0
    assert_no_deadlock(connection, before)


def test_notification_of_a_comment_that_is_written_during_a_block_is_not_shown(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner, author = make_person(username="ada"), make_person()
    post_id = make_post(make_person())
    with database.begin() as holder:
        holder.execute(text("SELECT FROM post_stats WHERE post_id = :id FOR UPDATE"), {"id": post_id})
        writing = in_background(lambda: crowd.send([reply(author, post_id, content="@ada")]))
        wait_until_blocked(connection, by=holder)
        assert statuses(crowd.send([Call("PUT", f"/users/{author.id}/block", owner)])) == {200: 1}

    assert statuses(writing()) == {201: 1}
    assert count(connection, "notifications WHERE user_id = :id", id=owner.id) == 1
    shown, unread = crowd.send([Call("GET", path, owner) for path in ("/notifications", "/notifications/unread-count")])
    assert (shown.json(), unread.json()["unread"]) == ([], 0)


def test_notification_that_commits_after_later_ones_were_read_stays_unread(
    crowd: Crowd, database: Engine, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    owner, author = make_person(), make_person()
    late, early = make_post(owner), make_post(owner)
    with database.begin() as holder:
        holder.execute(text("SELECT FROM post_stats WHERE post_id = :id FOR UPDATE"), {"id": late})
        writing = in_background(lambda: crowd.send([reply(author, late)]))
        wait_until_blocked(connection, by=holder)
        crowd.send([reply(author, early)])
        (answer,) = crowd.send([Call("POST", "/notifications/read", owner, {"up_to": LARGEST_KEY})])
        assert answer.json()["unread"] == 0

    assert statuses(writing()) == {201: 1}
    (answer,) = crowd.send([Call("GET", "/notifications?unread=true", owner)])
    assert [item["post_id"] for item in answer.json()] == [late]
    ids = connection.scalars(text("SELECT post_id FROM notifications ORDER BY id")).all()
    assert ids == [late, early]


def test_marking_deletions_and_comments_at_once_do_not_wait_for_each_other(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost, make_comment: MakeComment
) -> None:
    before = deadlocks(connection)
    draw = random.Random(7)
    people = [make_person(username=f"name{chr(97 + n)}") for n in range(12)]
    posts = [make_post(draw.choice(people[:8])) for _ in range(12)]
    parents = [(post_id, make_comment(draw.choice(people[:8]), post_id)) for post_id in posts for _ in range(3)]
    calls: list[Call] = []
    for _ in range(400):
        caller, user = draw.sample(people, 2)
        post_id, parent = draw.choice(parents)
        kind = draw.choice(["reply", "reply", "reply", "read", "read", "follow", "block", "mute", "edit", "remove"])
        if kind == "reply":
            calls.append(reply(caller, post_id, parent, f"@name{chr(97 + draw.randrange(12))}"))
        elif kind == "read":
            calls.append(Call("POST", "/notifications/read", caller, {"up_to": LARGEST_KEY}))
        elif kind in {"follow", "block"}:
            calls.append(Call(draw.choice(["PUT", "DELETE"]), f"/users/{user.id}/{kind}", caller))
        elif kind == "mute":
            calls.append(Call(draw.choice(["PUT", "DELETE"]), f"/posts/{post_id}/mute", caller))
        elif kind == "edit":
            body = {"content": f"@name{chr(97 + draw.randrange(12))}", "published": draw.choice([True, True, False])}
            calls += [Call("PATCH", f"/posts/{post_id}", person, body) for person in people[:8]]
        else:
            calls += [Call("DELETE", f"/comments/{parent}", person) for person in people[:8]]
    calls += [Call("DELETE", f"/posts/{post_id}", person) for post_id in posts[:3] for person in people[:8]]
    calls += [delete(person) for person in people[6:]]
    draw.shuffle(calls)

    for first in range(0, len(calls), 80):
        assert set(statuses(crowd.send(calls[first : first + 80]))) <= {200, 201, 204, 401, 403, 404}
    deletion.work()

    assert count(connection, "users") == 6
    # Accounts are not locked for a mention, which may outlive its recipient unseen.
    assert count(connection, "notifications WHERE kind <> 'mention' AND user_id NOT IN (SELECT id FROM users)") == 0
    assert count(connection, "notifications WHERE post_id NOT IN (SELECT id FROM posts)") == 0
    gone = "comment_id NOT IN (SELECT id FROM comments WHERE deleted_at IS NULL)"
    assert count(connection, f"notifications WHERE {gone}") == 0
    assert_no_deadlock(connection, before)


def test_users_who_follow_each_other_at_once_are_each_notified_once(
    crowd: Crowd, connection: Connection, make_person: MakePerson
) -> None:
    before = deadlocks(connection)
    people = [make_person() for _ in range(8)]
    calls = [Call("PUT", f"/users/{b.id}/follow", a) for a in people for b in people if a is not b]
    random.Random(3).shuffle(calls)
    assert set(statuses(crowd.send([*calls, *calls[:20], delete(people[0])]))) <= {200, 204, 401, 404}
    deletion.work()
    others = [person.id for person in people[1:]]
    values = {"ids": others}
    assert count(connection, "notifications WHERE user_id = ANY (:ids) AND actor_id = ANY (:ids)", **values) == 42
    assert count(connection, "notifications WHERE user_id <> ALL (:ids)", **values) == 0
    assert_no_deadlock(connection, before)
