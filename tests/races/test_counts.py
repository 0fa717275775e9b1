"""All counts at once: a storm of every kind of write leaves each count equal to its rows."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import httpx2
import pytest
from sqlalchemy import Connection

from app.services import deletion, recount
from tests.figures import Figure
from tests.fixtures import Person
from tests.races.conftest import Call, Crowd
from tests.races.killing import backends_killed

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
TAGS = ("sea", "food", "old-towns", "night")
# What a race explains: the account is gone, another's post or comment, one that is gone, a vote that exists.
EXPLAINED = {200, 201, 204, 401, 403, 404, 409}

# Others, such as changes of a post, succeed only where the caller happens to draw one of their own.
ALWAYS = {"vote", "comment", "vote for a comment", "follow", "follow of a tag", "bookmark", "post"}


class Site:
    """The ids that writes may refer to, existing or not any more."""

    def __init__(self, people: list[Person], post_ids: list[int]) -> None:
        self.people, self.post_ids, self.comment_ids = people, post_ids, [0]
        self.seen = Counter[tuple[str, int]]()
        self.written = Counter[str]()

    def member(self, person: Person, seed: int, writes: int) -> Callable[[httpx2.AsyncClient], Awaitable[None]]:
        chance = random.Random(seed)

        async def act(client: httpx2.AsyncClient) -> None:
            for _ in range(writes):
                kind, call = self._draw(chance, person)
                answer = await call.send(client)
                self.seen[kind, answer.status_code] += 1
                if answer.status_code == 201 and kind in {"comment", "reply"}:
                    self.comment_ids.append(answer.json()["id"])
                if answer.status_code == 201 and kind == "post":
                    self.post_ids.append(answer.json()["id"])

        return act

    def _draw(self, chance: random.Random, person: Person) -> tuple[str, Call]:
        post, comment = chance.choice(self.post_ids), chance.choice(self.comment_ids)
        other = chance.choice(self.people)
        setting = chance.choice(("PUT", "PUT", "DELETE"))
        tags = chance.sample(TAGS, chance.randrange(4))
        new = {"title": "title", "content": "content", "tags": tags, "published": chance.random() < 0.8}
        calls = {
            "vote": Call(setting, f"/posts/{post}/vote", person),
            "comment": Call("POST", f"/posts/{post}/comments", person, {"content": "comment"}),
            "reply": Call("POST", f"/posts/{post}/comments", person, {"content": "reply", "parent_id": comment}),
            "vote for a comment": Call(setting, f"/comments/{comment}/vote", person),
            "deletion of a comment": Call("DELETE", f"/comments/{comment}", person),
            "follow": Call(setting, f"/users/{other.id}/follow", person),
            "follow of a tag": Call(setting, f"/tags/{chance.choice(TAGS)}/follow", person),
            "block": Call(setting, f"/users/{other.id}/block", person),
            "bookmark": Call(setting, f"/posts/{post}/bookmark", person),
            "post": Call("POST", "/posts", person, new),
            "change of a post": Call("PUT", f"/posts/{post}", person, new),
            "deletion of a post": Call("DELETE", f"/posts/{post}", person),
            "deletion of an account": Call("DELETE", "/users/me", person),
        }
        shares = (20, 12, 12, 12, 6, 10, 6, 2, 4, 6, 6, 2, 0.2)
        (kind,) = chance.choices([*calls], shares)
        return kind, calls[kind]


def check(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost,
    *, people_count: int, writes: int, may_kill: bool = False,
) -> str:  # fmt: skip
    people = [make_person() for _ in range(people_count)]
    site = Site(people, [make_post(people[n % people_count]) for n in range(15)])

    # Not more often: few transactions of several statements would end.
    with backends_killed(connection, crowd, every_seconds=0.5) if may_kill else nullcontext(set[int]()) as killed:
        crowd.run([site.member(person, seed, writes) for seed, person in enumerate(people)])
    while deletion.work():
        pass

    statuses = Counter[int]()
    for (_, status), number in site.seen.items():
        statuses[status] += number
    # A follow of oneself is 422.
    assert {*statuses} <= EXPLAINED | {422} | ({503} if may_kill else set()), site.seen
    succeeded = {kind for kind, status in site.seen if status < 300}
    assert succeeded >= ALWAYS, site.seen
    wrong = [(batch.table, batch.wrong) for batch in recount.recount(is_repairing=False) if batch.wrong]
    assert wrong == []
    found = dict(sorted(statuses.items()))
    return f"{statuses.total()} writes of 13 kinds by {people_count} users, {found}, {len(killed)} connections killed"


def test_all_counts_equal_their_rows_after_a_storm_of_every_kind_of_write(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost
) -> None:
    check(crowd, connection, make_person, make_post, people_count=20, writes=60)


@pytest.mark.slow
def test_all_counts_equal_their_rows_after_10_000_writes_while_connections_are_killed(
    crowd: Crowd, connection: Connection, make_person: MakePerson, make_post: MakePost, figure: Figure
) -> None:
    done = check(crowd, connection, make_person, make_post, people_count=50, writes=200, may_kill=True)
    figure(f"R4, all counts: {done}: no count differs")
