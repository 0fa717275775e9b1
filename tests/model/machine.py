"""Rules for random actions on the site: the API and the model must give the same answer."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx2
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from starlette.testclient import TestClient

from app.services import deletion
from tests.fixtures import linked
from tests.model.site import Account, Comment, Post, Site, names_in

PASSWORD = "correct horse battery"
WORDS = st.lists(st.sampled_from(["red", "Green", "grey", "BLUE", "moss", "mossy"]), min_size=1, max_size=4).map(
    " ".join
)
TEXTS = WORDS | st.tuples(WORDS, st.sampled_from(["@ada", "@Grace", "@person-1", "@Person-2", "@missing"])).map(
    " ".join
)
TAGS = st.lists(st.sampled_from(["a", "A", "b", "c"]), max_size=4)
# Few users with few posts, so that they meet each other's. An empty site tests little.
MAX_PEOPLE = 5
MIN_LEFT = 2
SORTS = st.sampled_from(["new", "old", "top"])


@dataclass
class Walk:
    """A client that follows the links of a list, page by page, while others write and vote."""

    reader: Account
    following: str | None
    # What stands there from the beginning, in the order of the beginning, as long as it stands there.
    standing: list[int]
    met: list[int] = field(default_factory=list)
    # In a list sorted by votes: the posts whose votes have changed since, which may be met twice or not at all.
    moved: set[int] | None = None
    is_home: bool = False


class Machine(RuleBasedStateMachine):
    client: ClassVar[TestClient]
    empty: ClassVar[Callable[[], None]]
    appoint: ClassVar[Callable[[int], None]]
    answer_count: ClassVar[int] = 0

    people: Bundle[Account] = Bundle("people")
    posts: Bundle[int] = Bundle("posts")
    comments: Bundle[int] = Bundle("comments")
    walks: Bundle[Walk] = Bundle("walks")

    def __init__(self) -> None:
        super().__init__()
        type(self).empty()
        self.site = Site()
        self.under_way: list[Walk] = []
        self.names = 0
        self.counts = Counter[int]()

    def ask(self, caller: Account | None, method: str, path: str, **options: Any) -> httpx2.Response:
        type(self).answer_count += 1
        headers = (caller.headers if caller else {}) | options.pop("headers", {})
        return self.client.request(method, path, headers=headers, **options)

    def is_gone(self, caller: Account, answer: httpx2.Response) -> bool:
        """Return whether the caller's account was deleted or its session ended, which the response must report."""
        gone = not self.is_valid(caller)
        assert gone == (answer.status_code == 401)
        return gone

    def is_valid(self, caller: Account) -> bool:
        return caller.id in self.site.accounts and caller.is_signed_in

    # So that every run, even a short one, has users, and something that they see differently.

    @initialize(target=people)
    def found(self) -> MultipleResults[Account]:
        return multiple(*(self.new_account(is_moderator=each) for each in (False, False, True)))

    @initialize(target=posts, author=people, published=st.booleans())
    def begin(self, author: Account, published: bool) -> int | MultipleResults[int]:
        return self.write(author, "red moss", "grey", published, ["a"])

    @initialize(target=comments, person=people, post_id=posts, content=TEXTS)
    def answer(self, person: Account, post_id: int, content: str) -> int | MultipleResults[int]:
        return self.comment(person, post_id, None, content)

    # People.

    @precondition(lambda self: self.names < MAX_PEOPLE)
    @rule(target=people, is_moderator=st.sampled_from([False, False, True]))
    def sign_up(self, is_moderator: bool) -> Account:
        return self.new_account(is_moderator=is_moderator)

    def new_account(self, *, is_moderator: bool) -> Account:
        self.names += 1
        body = {"email": f"Person{self.names}@example.com", "password": PASSWORD, "username": f"person-{self.names}"}
        made = self.ask(None, "POST", "/users", json=body)
        assert made.status_code == 201
        signed_in = self.sign_in(body["email"].lower())
        assert signed_in.status_code == 200
        account = Account(
            made.json()["id"], body["email"], body["username"], is_moderator, signed_in.json()["access_token"]
        )
        if is_moderator:
            type(self).appoint(account.id)
        self.site.accounts[account.id] = account
        return account

    def sign_in(self, email: str) -> httpx2.Response:
        return self.ask(None, "POST", "/login", data={"username": email, "password": PASSWORD})

    @rule(person=people)
    def sign_up_with_a_taken_address(self, person: Account) -> None:
        if person.id in self.site.accounts:
            answer = self.ask(None, "POST", "/users", json={"email": person.email.upper(), "password": PASSWORD})
            assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")

    @rule(person=people, name=st.sampled_from(["ada", "Ada", "grace"]))
    def rename(self, person: Account, name: str) -> None:
        answer = self.ask(person, "PATCH", "/users/me", json={"username": name})
        if self.is_gone(person, answer):
            return
        taken = any(
            each.username.lower() == name.lower() for each in self.site.accounts.values() if each.id != person.id
        )
        assert answer.status_code == (409 if taken else 200)
        if not taken:
            person.username = name

    @precondition(lambda self: len(self.site.accounts) > MIN_LEFT)
    @rule(person=people)
    def delete_account(self, person: Account) -> None:
        answer = self.ask(person, "DELETE", "/users/me")
        if self.is_gone(person, answer):
            return
        assert answer.status_code == 204
        self.site.forget_account(person.id)
        deletion.work()  # Of an account with comments, more is left than is shown.

    # Posts.

    @rule(
        target=posts, person=people, title=WORDS, content=TEXTS, published=st.sampled_from([True, True, True, False]),
        tags=TAGS,
    )  # fmt: skip
    def write(
        self, person: Account, title: str, content: str, published: bool, tags: list[str]
    ) -> int | MultipleResults[int]:
        body = {"title": title, "content": content, "published": published, "tags": tags}
        answer = self.ask(person, "POST", "/posts", json=body)
        if self.is_gone(person, answer):
            return multiple()
        assert answer.status_code == 201
        post = Post(answer.json()["id"], person.id, title, content, published, tags=stored(tags))
        self.site.posts[post.id] = post
        if published:
            self.site.notify(person.id, names_in(content), post=post.id)
        return post.id

    @rule(
        person=people,
        post_id=posts,
        method=st.sampled_from(["PUT", "PATCH"]),
        change=st.fixed_dictionaries(
            {}, optional={"title": WORDS, "content": TEXTS, "published": st.booleans(), "tags": TAGS}
        ),
        seen=st.sampled_from([None, "now", "before", "*"]),
    )
    def change(self, person: Account, post_id: int, method: str, change: dict[str, Any], seen: str | None) -> None:
        if method == "PUT":
            change = {"title": "red", "content": "moss", "published": True} | change
        headers, versions = self.expecting(post_id, seen)
        answer = self.ask(person, method, f"/posts/{post_id}", json=change, headers=headers)
        if self.is_gone(person, answer):
            return
        post = self.site.posts.get(post_id)
        is_own = post is not None and post.owner == person.id
        expected = self.site.answer_to_change(person, post_id, versions, is_allowed=is_own)
        if expected == 200 and post is not None and post.removal is not None and change.get("published") is True:
            assert (answer.status_code, answer.json()["code"]) == (403, "removed")
            return
        assert answer.status_code == expected
        if "tags" in change:
            change["tags"] = stored(change["tags"])
        if answer.status_code == 200 and post is not None:
            known = names_in(post.content) if post.published else set()
            post.version += any(getattr(post, name) != value for name, value in change.items())
            for name, value in change.items():
                setattr(post, name, value)
            if change.get("published") is False:
                post.was_published_before_removal = False
            if post.published:
                self.site.publish(post_id)
                self.site.notify(person.id, names_in(post.content) - known, post=post_id)
            assert answer.headers["ETag"] == f'"{post.version}"'
            assert without_times(answer.json()) == self.site.shown(person, post_id)["Post"]

    @precondition(lambda self: len(self.site.posts) > MIN_LEFT)
    @rule(person=people, post_id=posts, seen=st.sampled_from([None, None, "now", "before"]))
    def delete_post(self, person: Account, post_id: int, seen: str | None) -> None:
        headers, versions = self.expecting(post_id, seen)
        answer = self.ask(person, "DELETE", f"/posts/{post_id}", headers=headers)
        if self.is_gone(person, answer):
            return
        is_allowed = post_id in self.site.posts and (person.is_moderator or self.site.posts[post_id].owner == person.id)
        refused = self.site.answer_to_change(person, post_id, versions, is_allowed=is_allowed)
        assert answer.status_code == (204 if refused == 200 else refused)
        if answer.status_code == 204:
            owner_id = self.site.posts[post_id].owner
            if owner_id != person.id:
                self.site.log.append((person.id, "delete", owner_id, post_id, None))
            self.site.forget_post(post_id)

    def expecting(self, post_id: int, seen: str | None) -> tuple[dict[str, str], set[int] | None]:
        """An `If-Match`, and the versions that it allows."""
        if seen is None or seen == "*":
            return ({"If-Match": seen} if seen else {}), None
        version = self.site.posts[post_id].version if post_id in self.site.posts else 1
        version -= seen == "before"
        return {"If-Match": f'"{version}"'}, {version}

    # Votes.

    @rule(person=people, post_id=posts, direction=st.sampled_from([1, 1, 0]))
    def vote(self, person: Account, post_id: int, direction: int) -> None:
        answer = self.ask(person, "POST", "/vote", json={"post_id": post_id, "vote_dir": direction})
        if self.is_gone(person, answer):
            return
        pair = (post_id, person.id)
        if not self.is_votable(post_id):
            assert (answer.status_code, answer.json()["code"]) == (404, "post_not_found")
        elif (pair in self.site.votes) == (direction == 1):
            assert (answer.status_code, answer.json()["code"]) == (
                (409, "already_voted") if direction else (404, "vote_not_found")
            )
        else:
            self.set_in_model(pair, is_there=direction == 1)
            assert (answer.status_code, answer.json()["votes"]) == (201, self.site.count(post_id))

    @rule(person=people, post_id=posts, method=st.sampled_from(["PUT", "PUT", "DELETE"]))
    def set_vote(self, person: Account, post_id: int, method: str) -> None:
        answer = self.ask(person, method, f"/posts/{post_id}/vote")
        if self.is_gone(person, answer):
            return
        if not self.is_votable(post_id):
            assert answer.status_code == 404
            return
        self.set_in_model((post_id, person.id), is_there=method == "PUT")
        assert answer.status_code == 200
        assert answer.json() == {"post_id": post_id, "votes": self.site.count(post_id), "voted": method == "PUT"}

    def is_votable(self, post_id: int) -> bool:
        return post_id in self.site.posts and self.site.posts[post_id].published

    def set_in_model(self, pair: tuple[int, int], *, is_there: bool) -> None:
        if is_there:
            self.site.votes.setdefault(pair, None)
        else:
            self.site.votes.pop(pair, None)

    # Comments.

    @rule(target=comments, person=people, post_id=posts, parent_id=st.none() | comments, content=TEXTS)
    def comment(self, person: Account, post_id: int, parent_id: int | None, content: str) -> int | MultipleResults[int]:
        parent = self.site.comments.get(parent_id or 0)
        if parent is not None and parent_id is not None:
            post_id = parent.post  # Else hardly any reply would be to a comment of the same post.
        body = {"content": content, "parent_id": parent_id}
        answer = self.ask(person, "POST", f"/posts/{post_id}/comments", json=body)
        if self.is_gone(person, answer):
            return multiple()
        if not self.is_votable(post_id):
            assert (answer.status_code, answer.json()["code"]) == (404, "post_not_found")
            return multiple()
        if parent_id is not None and (parent is None or parent.owner is None or parent.removal is not None):
            assert (answer.status_code, answer.json()["code"]) == (404, "comment_not_found")
            return multiple()
        answering = (self.site.posts[post_id].owner, None if parent is None else parent.owner)
        if any((owner, person.id) in self.site.blocks for owner in answering):
            assert (answer.status_code, answer.json()["code"]) == (403, "blocked")
            return multiple()
        if self.site.posts[post_id].is_locked:
            assert (answer.status_code, answer.json()["code"]) == (403, "locked")
            return multiple()
        assert answer.status_code == 201
        written = Comment(
            answer.json()["id"], post_id, parent_id, person.id, content, 0 if parent is None else parent.depth + 1
        )
        self.site.comments[written.id] = written
        others = ((None if parent is None else parent.owner, "reply"), (self.site.posts[post_id].owner, "comment"))
        self.site.notify(person.id, names_in(content), post=post_id, comment=written.id, others=others)
        assert untimed(answer.json()) == self.site.shown_comment(person, written)
        return written.id

    @rule(person=people, comment_id=comments, content=TEXTS)
    def change_comment(self, person: Account, comment_id: int, content: str) -> None:
        answer = self.ask(person, "PATCH", f"/comments/{comment_id}", json={"content": content})
        if self.is_gone(person, answer):
            return
        comment = self.live(person, comment_id)
        if comment is None:
            assert answer.status_code == 404
        elif comment.owner != person.id:
            assert answer.status_code == 403
        else:
            comment.version += comment.content != content
            added = names_in(content) - names_in(comment.content)
            comment.content = content
            if self.is_votable(comment.post) and comment.removal is None:
                self.site.notify(person.id, added, post=comment.post, comment=comment_id)
            assert answer.headers["ETag"] == f'"{comment.version}"'
            assert untimed(answer.json()) == self.site.shown_comment(person, comment)

    @rule(person=people, comment_id=comments)
    def delete_comment(self, person: Account, comment_id: int) -> None:
        answer = self.ask(person, "DELETE", f"/comments/{comment_id}")
        if self.is_gone(person, answer):
            return
        comment = self.live(person, comment_id)
        if comment is None:
            assert answer.status_code == 404
        elif comment.owner != person.id and not person.is_moderator:
            assert answer.status_code == 403
        else:
            assert answer.status_code == 204
            if comment.owner is not None and comment.owner != person.id:
                self.site.log.append((person.id, "delete", comment.owner, comment.post, comment_id))
            self.site.forget_comment(comment_id)

    @rule(person=people, comment_id=comments, method=st.sampled_from(["PUT", "PUT", "DELETE"]))
    def vote_for_comment(self, person: Account, comment_id: int, method: str) -> None:
        answer = self.ask(person, method, f"/comments/{comment_id}/vote")
        if self.is_gone(person, answer):
            return
        comment = self.live(person, comment_id)
        if comment is None or comment.removal is not None or not self.is_votable(comment.post):
            assert answer.status_code == 404
            return
        (comment.voters.add if method == "PUT" else comment.voters.discard)(person.id)
        assert answer.json() == {
            "comment_id": comment_id, "votes": len(comment.voters), "voted": method == "PUT",
        }  # fmt: skip

    def live(self, person: Account, comment_id: int) -> Comment | None:
        """Return the comment if the person sees it and it is no tombstone."""
        comment = self.site.comments.get(comment_id)
        if comment is None or not self.site.sees(person, comment.post) or not self.site.shows_text(person, comment):
            return None
        return comment

    @rule(
        person=people, post_id=posts, parent_id=st.none() | comments, sort=st.sampled_from(["top", "new", "old"]),
        depth=st.integers(0, 4),
    )  # fmt: skip
    def read_thread(self, person: Account, post_id: int, parent_id: int | None, sort: str, depth: int) -> None:
        parent = self.site.comments.get(parent_id or 0)
        post_id = post_id if parent is None else parent.post
        query = {"sort": sort, "depth": depth, "limit": 100} | ({"parent_id": parent_id} if parent_id else {})
        answer = self.ask(person, "GET", f"/posts/{post_id}/comments", params=query)
        if self.is_gone(person, answer):
            return
        is_missing = parent is None or self.site.is_removed_leaf(person, parent)
        if not self.site.sees(person, post_id) or (parent_id is not None and is_missing):
            assert answer.status_code == 404
            return
        assert untimed(answer.json()) == self.site.thread(person, post_id, parent_id, sort, depth)

    @rule(person=people, other=people)
    def list_comments(self, person: Account, other: Account) -> None:
        answer = self.ask(person, "GET", f"/users/{other.id}/comments", params={"limit": 100})
        if self.is_gone(person, answer):
            return
        if other.id not in self.site.accounts:
            assert answer.status_code == 404
            return
        listed = self.site.comments_of(person, other)
        assert untimed(answer.json()) == [self.site.shown_comment(person, each) for each in listed]

    # Relations.

    @rule(person=people, other=people, method=st.sampled_from(["PUT", "PUT", "DELETE"]))
    def follow(self, person: Account, other: Account, method: str) -> None:
        answer = self.ask(person, method, f"/users/{other.id}/follow")
        if self.is_gone(person, answer) or self.is_refused(person, other, answer):
            return
        pair = (person.id, other.id)
        if method == "PUT" and self.site.blocks & {pair, pair[::-1]}:
            assert (answer.status_code, answer.json()["code"]) == (403, "blocked")
            return
        if method == "PUT" and pair not in self.site.follows_of_people:
            self.site.notify(person.id, (), others=[(other.id, "follow")])
        (self.site.follows_of_people.add if method == "PUT" else self.site.follows_of_people.discard)(pair)
        followers = self.site.profile(person, other)["followers"]
        assert answer.json() == {"user_id": other.id, "followers": followers, "followed": method == "PUT"}

    @rule(person=people, other=people, method=st.sampled_from(["PUT", "DELETE"]))
    def block(self, person: Account, other: Account, method: str) -> None:
        answer = self.ask(person, method, f"/users/{other.id}/block")
        if self.is_gone(person, answer) or self.is_refused(person, other, answer):
            return
        assert answer.json() == {"user_id": other.id, "blocked": method == "PUT"}
        pair = (person.id, other.id)
        if method == "PUT":
            self.site.blocks.add(pair)
            self.site.follows_of_people -= {pair, pair[::-1]}
        else:
            self.site.blocks.discard(pair)

    def is_refused(self, person: Account, other: Account, answer: httpx2.Response) -> bool:
        """Return whether the other account is the person's own or gone, which the response must report."""
        expected = 422 if person is other else 200 if other.id in self.site.accounts else 404
        assert answer.status_code in {expected, 403}
        return expected != 200

    @rule(person=people, post_id=posts, method=st.sampled_from(["PUT", "PUT", "DELETE"]))
    def bookmark(self, person: Account, post_id: int, method: str) -> None:
        answer = self.ask(person, method, f"/posts/{post_id}/bookmark")
        if self.is_gone(person, answer):
            return
        if not self.is_votable(post_id):
            assert answer.status_code == 404
            return
        if method == "PUT":
            self.site.bookmarks.setdefault((post_id, person.id), None)
        else:
            self.site.bookmarks.pop((post_id, person.id), None)
        assert answer.json() == {"post_id": post_id, "bookmarked": method == "PUT"}

    # Notifications.

    @rule(person=people, post_id=posts, method=st.sampled_from(["PUT", "DELETE"]))
    def mute(self, person: Account, post_id: int, method: str) -> None:
        answer = self.ask(person, method, f"/posts/{post_id}/mute")
        if self.is_gone(person, answer):
            return
        pair = (post_id, person.id)
        if not self.is_votable(post_id) and not (method == "DELETE" and pair in self.site.mutes):
            assert answer.status_code == 404
            return
        (self.site.mutes.add if method == "PUT" else self.site.mutes.discard)(pair)
        assert answer.json() == {"post_id": post_id, "muted": method == "PUT"}
        if self.is_votable(post_id):
            assert self.ask(person, "GET", f"/posts/{post_id}/mute").json() == answer.json()

    @rule(person=people, is_unread=st.booleans(), read_from=st.none() | st.integers(0, 3))
    def read_notifications(self, person: Account, is_unread: bool, read_from: int | None) -> None:
        """List them, and mark one of the newest and all older ones as read."""
        answer = self.ask(person, "GET", "/notifications", params={"unread": is_unread, "limit": 100})
        if self.is_gone(person, answer):
            return
        shown = self.site.shown_notifications(person)
        expected = [each for each in shown if not (is_unread and each.is_read)]
        assert [
            (each["kind"], (each["actor"] or {}).get("id"), each["post_id"], each["comment_id"], bool(each["read_at"]))
            for each in answer.json()
        ] == [(each.kind, each.actor, each.post, each.comment, each.is_read) for each in expected]
        if read_from is not None and read_from < len(expected):
            newest = self.site.notifications.index(expected[read_from])
            for each in self.site.notifications[: newest + 1]:
                each.is_read = each.is_read or each.recipient == person.id
            up_to = answer.json()[read_from]["id"]
            counts = self.ask(person, "POST", "/notifications/read", json={"up_to": up_to})
        else:
            counts = self.ask(person, "GET", "/notifications/unread-count")
        unread = Counter(each.kind for each in shown if not each.is_read)
        assert counts.json()["unread"] == unread.total()
        assert {kind: number for kind, number in counts.json()["by_kind"].items() if number} == unread

    @rule(person=people)
    def list_bookmarks(self, person: Account) -> None:
        answer = self.ask(person, "GET", "/users/me/bookmarks", params={"limit": 100})
        if not self.is_gone(person, answer):
            expected = self.site.bookmarks_of(person)
            assert shown_in(answer.json()) == [self.site.shown(person, post_id) for post_id in expected]

    @rule(person=people, other=people)
    def read_profile(self, person: Account, other: Account) -> None:
        answer = self.ask(person, "GET", f"/users/{other.id}")
        if not self.is_valid(person):
            person = Account(0, "", "", is_moderator=False, token="")  # A credential that is not valid is ignored.
        if other.id not in self.site.accounts:
            assert answer.status_code == 404
        else:
            shown = answer.json()
            expected = self.site.profile(person, other)
            assert {name: shown[name] for name in expected} == expected

    # Reading.

    @rule(person=people, post_id=posts)
    def read(self, person: Account, post_id: int) -> None:
        answer = self.ask(person, "GET", f"/posts/{post_id}")
        if self.is_gone(person, answer):
            return
        if not self.site.sees(person, post_id):
            assert answer.status_code == 404
            return
        assert shown_in([answer.json()]) == [self.site.shown(person, post_id)]
        again = self.ask(person, "GET", f"/posts/{post_id}", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304

    @rule(
        person=people, sort=SORTS, drafts=st.booleans(), owner=st.none() | people, search=st.just("") | WORDS,
        tag=st.sampled_from(["", "", "a", "b"]), limit=st.integers(1, 5), skip=st.integers(0, 3),
    )  # fmt: skip
    def list_posts(
        self, person: Account, sort: str, drafts: bool, owner: Account | None, search: str, tag: str, limit: int,
        skip: int,
    ) -> None:  # fmt: skip
        drafts = drafts and owner in {None, person}
        query = {"sort": sort, "limit": limit, "skip": skip, "search": search, "published": not drafts}
        if owner is not None:
            query["owner_id"] = owner.id
        if tag:
            query["tag"] = tag
        answer = self.ask(person, "GET", "/posts", params=query)
        if self.is_gone(person, answer):
            return
        owner_id = owner.id if owner else None
        expected = self.site.page(person, sort, drafts=drafts, owner=owner_id, search=search, tag=tag)
        assert shown_in(answer.json()) == self.site.shown_page(person, expected[skip : skip + limit])

    @rule(person=people, name=st.sampled_from(["a", "b", "new"]), method=st.sampled_from(["PUT", "PUT", "DELETE"]))
    def follow_tag(self, person: Account, name: str, method: str) -> None:
        answer = self.ask(person, method, f"/tags/{name}/follow")
        if self.is_gone(person, answer):
            return
        change = self.site.follows.add if method == "PUT" else self.site.follows.discard
        change((name, person.id))
        assert answer.status_code == 200
        followers = sum(followed == name for followed, _ in self.site.follows)
        posts = self.site.tags().get(name, 0)
        state = {"name": name, "posts": posts, "followed": method == "PUT", "followers": followers}
        assert answer.json() == state
        assert self.ask(person, "GET", f"/tags/{name}").json() == state

    @rule(person=people, limit=st.integers(1, 5))
    def read_home(self, person: Account, limit: int) -> None:
        answer = self.ask(person, "GET", "/home", params={"limit": limit})
        if not self.is_gone(person, answer):
            assert shown_in(answer.json()) == self.site.shown_page(person, self.site.home(person)[:limit])

    @rule(person=people)
    def list_tags(self, person: Account) -> None:
        answer = self.ask(person, "GET", "/tags?sort=name")
        if not self.is_gone(person, answer):
            assert answer.json() == [
                {"name": name, "posts": posts, "followed": (name, person.id) in self.site.follows}
                for name, posts in sorted(self.site.tags().items())
            ]

    @rule(person=people)
    def list_votes(self, person: Account) -> None:
        answer = self.ask(person, "GET", "/users/me/votes", params={"limit": 100})
        if not self.is_gone(person, answer):
            expected = self.site.votes_of(person)
            assert shown_in(answer.json()) == [self.site.shown(person, post_id) for post_id in expected]

    # Walking.

    @rule(target=walks, person=people, sort=SORTS, limit=st.integers(1, 3))
    def begin_to_walk(self, person: Account, sort: str, limit: int) -> Walk | MultipleResults[Walk]:
        if not self.is_valid(person):
            return multiple()
        listed = self.site.page(person, sort)
        standing = [post_id for post_id in listed if not self.site.hides(person, self.site.posts[post_id].owner)]
        walk = Walk(person, f"/posts?sort={sort}&limit={limit}", standing)
        walk.moved = set() if sort == "top" else None
        self.under_way.append(walk)
        self.walk_on(walk)
        return walk

    @rule(target=walks, person=people, limit=st.integers(1, 3))
    def begin_to_walk_home(self, person: Account, limit: int) -> Walk | MultipleResults[Walk]:
        if not self.is_valid(person):
            return multiple()
        walk = Walk(person, f"/home?limit={limit}", self.site.home(person), is_home=True)
        self.under_way.append(walk)
        self.walk_on(walk)
        return walk

    @rule(walk=walks)
    def walk_on(self, walk: Walk) -> None:
        if walk.following is None:
            return
        answer = self.ask(walk.reader, "GET", walk.following)
        if self.is_gone(walk.reader, answer):
            walk.following = None
            return
        page = shown_in(answer.json())
        ids = [each["Post"]["id"] for each in page]
        assert page == [self.site.shown(walk.reader, post_id) for post_id in ids]
        walk.met += ids
        walk.following = linked(answer)
        unmoved = [post_id for post_id in walk.met if post_id not in (walk.moved or ())]
        assert len(unmoved) == len(set(unmoved)), "a post was met twice"
        met = [post_id for post_id in walk.met if post_id in walk.standing]
        assert met == (walk.standing if walk.following is None else walk.standing[: len(met)]), "a post was skipped"

    @invariant()
    def what_has_left_a_list_or_its_place_need_not_be_met(self) -> None:
        counts = Counter(post_id for post_id, _ in self.site.votes)
        changed = {post_id for post_id in {*counts, *self.counts} if counts[post_id] != self.counts[post_id]}
        self.counts = counts
        for walk in self.under_way:
            if walk.moved is not None:
                walk.moved |= changed
            walk.standing = [
                post_id
                for post_id in walk.standing
                if self.is_votable(post_id)
                and post_id not in (walk.moved or ())
                and not self.site.hides(walk.reader, self.site.posts[post_id].owner)
            ]
            if walk.is_home:
                at_home = self.site.home(walk.reader)
                walk.standing = [post_id for post_id in walk.standing if post_id in at_home]

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None:
            return  # API and model already differ. Later differences prove nothing.
        for walk in self.under_way:
            while walk.following is not None:
                self.walk_on(walk)


TIMES = {"created_at", "updated_at", "published_at"}


def stored(tags: list[str]) -> list[str]:
    """Return the tags as the API stores them."""
    return [*dict.fromkeys(tag.lower() for tag in tags)]


def without_times(post: dict[str, Any]) -> dict[str, Any]:
    owner = {name: value for name, value in post["owner"].items() if name != "created_at"}
    return {name: value for name, value in post.items() if name not in TIMES} | {"owner": owner}


def untimed(shown: Any) -> Any:
    """Return the comments, or a comment, without times."""
    if isinstance(shown, list):
        return [untimed(each) for each in shown]
    if isinstance(shown, dict):
        return {name: untimed(value) for name, value in shown.items() if name not in TIMES}
    return shown


def shown_in(page: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each | {"Post": without_times(each["Post"])} for each in page]
