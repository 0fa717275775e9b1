"""`GET /live`: what a stream gets, from writes of another process."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.fixtures import Person, Server
from tests.live.listening import Listener, Message, listening

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]


def send(method: str, url: str, caller: Person, **options: object) -> httpx2.Response:
    response = httpx2.request(method, url, headers=caller.headers, **options)  # type: ignore[arg-type]
    assert response.status_code < 300, response.text
    return response


def values_of(message: Message) -> tuple[int, int]:
    return message["post"]["votes"], message["post"]["comments"]


def test_the_first_message_has_the_state_of_all_that_is_watched(
    url: str, person: Person, make_post: MakePost, cast_votes: Callable[[int, list[Person]], None]
) -> None:
    post_id = make_post(person)
    cast_votes(post_id, [person])
    with listening(url, person, f"posts={post_id},{2**62}&topics=me,new") as listener:
        assert listener.messages[0] == {
            "type": "state",
            "posts": [
                {
                    "type": "post",
                    "id": post_id,
                    "post": {"votes": 1, "comments": 0, "version": 1, "published": True, "locked": False},
                },
                {"type": "post", "id": 2**62, "post": None},
            ],
            "unread": {
                "type": "unread",
                "unread": 0,
                "by_kind": {"reply": 0, "comment": 0, "mention": 0, "follow": 0, "moderation": 0},
            },
        }
        assert listener.last_event_id


def test_a_vote_on_another_server_arrives_within_a_second(
    url: str, other_url: str, person: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    with listening(url, person, f"posts={post_id}") as listener:
        began_at = time.monotonic()
        send("PUT", f"{other_url}/posts/{post_id}/vote", person)
        assert values_of(listener.wait_for_type("post")) == (1, 0)
        assert listener.times[-1] - began_at < 1


def test_a_post_has_at_most_two_messages_a_second_and_the_last_value(
    url: str, other_url: str, make_person: MakePerson, make_post: MakePost
) -> None:
    voters = [make_person() for _ in range(12)]
    post_id = make_post(voters[0])
    with listening(url, voters[0], f"posts={post_id}") as listener:
        for voter in voters:
            send("PUT", f"{other_url}/posts/{post_id}/vote", voter)
            time.sleep(0.1)
        listener.wait_for(lambda message: message["type"] == "post" and values_of(message) == (12, 0))
        gaps = [later - earlier for earlier, later in zip(listener.times[1:], listener.times[2:], strict=False)]
        assert len(listener.of_type("post")) < 12
        assert all(gap > 0.35 for gap in gaps), gaps


def test_a_comment_arrives_with_its_content_and_the_new_count(
    url: str, other_url: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    post_id, author = make_post(person), make_person(username="grace")
    with listening(url, person, f"posts={post_id}&topics=me") as listener:
        written = send("POST", f"{other_url}/posts/{post_id}/comments", author, json={"content": "Hello"}).json()
        comment = listener.wait_for_type("comment")["comment"]
        assert comment == {
            "id": written["id"], "post_id": post_id, "parent_id": None, "depth": 0, "content": "Hello",
            "author": {"id": author.id, "username": "grace", "display_name": None, "avatar": None},
            "created_at": written["created_at"],
        }  # fmt: skip
        assert values_of(listener.wait_for_type("post")) == (0, 1)
        notification = listener.wait_for_type("notification")["notification"]
        assert (notification["kind"], notification["comment_id"]) == ("comment", written["id"])
        assert listener.wait_for_type("unread")["by_kind"]["comment"] == 1
        send("POST", f"{other_url}/notifications/read", person, json={"up_to": notification["id"]})
        listener.wait_for(lambda message: message["type"] == "unread" and message["unread"] == 0)


def test_published_posts_arrive_by_topic(url: str, other_url: str, person: Person, make_person: MakePerson) -> None:
    author = make_person()
    with listening(url, person, "topics=new") as of_all, listening(url, person, "topics=tag:Sea") as of_tag:
        for tags in (["hills"], ["sea", "hills"]):
            send("POST", f"{other_url}/posts", author, json={"title": "t", "content": "c", "tags": tags})
        assert of_tag.wait_for_type("published")["post"]["tags"] == ["sea", "hills"]
        of_all.wait_for(lambda message: message["type"] == "published" and "sea" in message["post"]["tags"])
        assert len(of_all.of_type("published")) == 2
        assert len(of_tag.of_type("published")) == 1


def test_an_edit_and_a_deletion_arrive(url: str, other_url: str, person: Person, make_post: MakePost) -> None:
    post_id = make_post(person)
    with listening(url, person, f"posts={post_id}") as listener:
        send("PATCH", f"{other_url}/posts/{post_id}", person, json={"title": "another"})
        assert listener.wait_for_type("post")["post"]["version"] == 2
        send("DELETE", f"{other_url}/posts/{post_id}", person)
        listener.wait_for(lambda message: message == {"type": "post", "id": post_id, "post": None})


def test_a_draft_is_shown_to_its_owner_and_to_moderators_only(
    url: str, other_url: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    stranger, moderator = make_person(), make_person(role="moderator")
    post_id = make_post(person, published=False)
    query = f"posts={post_id}"
    with (
        listening(url, person, query) as own,
        listening(url, moderator, query) as of_moderator,
        listening(url, stranger, query) as of_stranger,
    ):
        assert of_stranger.messages[0]["posts"] == [{"type": "post", "id": post_id, "post": None}]
        for listener in (own, of_moderator):
            assert listener.messages[0]["posts"][0]["post"]["published"] is False
        send("PATCH", f"{other_url}/posts/{post_id}", person, json={"title": "another"})
        own.wait_for(lambda message: message["type"] == "post" and message["post"]["version"] == 2)
        of_moderator.wait_for_type("post")
        time.sleep(0.6)  # So that the next value is not held back.
        assert of_stranger.of_type("post") == []  # Not even that something has changed.
        send("PATCH", f"{other_url}/posts/{post_id}", person, json={"published": True})
        of_stranger.wait_for(lambda message: message["type"] == "post" and message["post"] is not None)
        send("POST", f"{other_url}/posts/{post_id}/remove", moderator, json={"reason": "Spam"})
        of_stranger.wait_for(lambda message: message["type"] == "post" and message["post"] is None)


def test_an_api_key_of_a_moderator_shows_no_draft(
    url: str, make_person: MakePerson, person: Person, make_post: MakePost
) -> None:
    moderator = make_person(role="moderator")
    post_id = make_post(person, published=False)
    key = send("POST", f"{url}/api-keys", moderator, json={"name": "n", "scopes": ["read"]}).json()["key"]
    listener = Listener(url, f"posts={post_id}", {"X-API-Key": key})
    try:
        assert listener.wait_for_type("state")["posts"][0]["post"] is None
    finally:
        listener.close()


def test_posts_and_comments_of_blocked_users_do_not_arrive(
    url: str, other_url: str, person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    blocked, other, post_id = make_person(), make_person(), make_post(person)
    shared = make_post(other)
    send("PUT", f"{url}/users/{blocked.id}/block", person)
    with listening(url, person, f"posts={post_id},{shared}&topics=new") as listener:
        for author in (blocked, other):
            send("POST", f"{other_url}/posts", author, json={"title": "t", "content": "c"})
            send("POST", f"{other_url}/posts/{shared}/comments", author, json={"content": "c"})
        assert listener.wait_for_type("published")["post"]["owner"]["id"] == other.id
        assert listener.wait_for_type("comment")["comment"]["author"]["id"] == other.id
        assert len(listener.of_type("published")) == len(listener.of_type("comment")) == 1


def sign_out(url: str, person: Person, _: Person, __: Connection) -> None:
    send("POST", f"{url}/logout", person)


def ban(url: str, person: Person, moderator: Person, _: Connection) -> None:
    send("POST", f"{url}/users/{person.id}/ban", moderator, json={"reason": "Spam"})


def delete(url: str, person: Person, moderator: Person, _: Connection) -> None:
    send("DELETE", f"{url}/users/{person.id}", moderator)


def expire(_: str, person: Person, __: Person, connection: Connection) -> None:
    connection.execute(text("UPDATE sessions SET expires_at = now() WHERE id = :id"), {"id": person.session_id})


@pytest.mark.parametrize("end", [sign_out, ban, delete, expire])
def test_the_end_of_a_session_ends_its_streams_within_a_second(
    url: str,
    other_url: str,
    person: Person,
    make_person: MakePerson,
    connection: Connection,
    end: Callable[[str, Person, Person, Connection], None],
) -> None:
    admin = make_person(role="admin")
    with listening(url, person, "topics=new") as listener, listening(url, admin, "topics=new") as other:
        end(other_url, person, admin, connection)
        ended_at = time.monotonic()
        listener.wait_for_end()
        assert listener.messages[-1] == {"type": "end", "reason": "session_ended"}
        assert listener.times[-1] - ended_at < 1
        assert not other.has_ended
    assert httpx2.get(f"{url}/live", headers=person.headers).status_code == 401


def test_nothing_is_lost_between_two_streams(
    servers: Sequence[Server], person: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    post_id, author = make_post(person), make_person()
    written: list[int] = []
    got: list[int] = []
    last_event_id = None
    for number in range(20):
        # By turns on the two servers: an id of one goes on at the other.
        with listening(
            servers[number % 2].url, person, f"posts={post_id}&topics=me", last_event_id=last_event_id
        ) as listener:
            for _ in range(2):
                content = {"content": f"comment {len(written)}"}
                sent = send("POST", f"{servers[0].url}/posts/{post_id}/comments", author, json=content)
                written.append(sent.json()["id"])
            if number % 3 == 0:
                listener.wait_for_type("comment")
            assert listener.of_type("reset") == []
        last_event_id = listener.last_event_id
        got += [message["comment"]["id"] for message in listener.of_type("comment")]
    with listening(servers[0].url, person, f"posts={post_id}", last_event_id=last_event_id) as listener:
        if written[-1] not in got:
            listener.wait_for(lambda message: message["type"] == "comment" and message["comment"]["id"] == written[-1])
        got += [message["comment"]["id"] for message in listener.of_type("comment")]
    assert got == written


@pytest.mark.parametrize("last_event_id", ["nonsense", "1-1-1", "1000000000000000-0-NOW"])
def test_an_id_that_the_log_does_not_have_is_answered_with_reset(url: str, person: Person, last_event_id: str) -> None:
    last_event_id = last_event_id.replace("NOW", str(int(time.time())))
    with listening(url, person, "topics=me", last_event_id=last_event_id) as listener:
        listener.wait_for_type("reset")


def test_a_sixth_stream_of_a_user_is_refused(url: str, person: Person, make_person: MakePerson) -> None:
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(listening(url, person, "topics=me"))
        refused = httpx2.get(f"{url}/live", headers=person.headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["Retry-After"] == "10"
        (count,) = re.findall(r"^live_streams (\d+)\.0$", httpx2.get(f"{url}/metrics").text, re.MULTILINE)
        assert int(count) >= 5
        stack.enter_context(listening(url, make_person(), "topics=me"))
    # The server notices that its clients are gone.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with listening(url, person, "topics=me"):
                return
        except AssertionError:
            time.sleep(0.1)
    raise AssertionError("streams of clients that are gone still count")


def test_sigterm_ends_streams_with_a_pause_before_the_next(start_server: Callable[..., Server], person: Person) -> None:
    server = start_server(WORKERS="2")
    with listening(server.url, person, "topics=me") as listener:
        began_at = time.monotonic()
        server.process.terminate()
        listener.wait_for_end()
        assert listener.messages[-1] == {"type": "end", "reason": "stopping"}
        assert listener.retry is not None
        assert 1_000 <= listener.retry <= 5_000
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - began_at < 5
