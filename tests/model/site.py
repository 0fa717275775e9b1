"""The site in plain Python: a model of the API for one client, without concurrency and failures."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Account:
    id: int
    email: str
    username: str
    is_moderator: bool
    token: str
    # A ban ends the session, and nothing begins it again but signing in.
    is_banned: bool = False
    is_signed_in: bool = True

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Post:
    """A post of the model. `Site.posts` is ordered by time."""

    id: int
    owner: int
    title: str
    content: str
    published: bool
    version: int = 1
    was_published: bool = False
    tags: list[str] = field(default_factory=list)
    is_locked: bool = False
    # Both are set while a moderator has removed the post.
    removal: str | None = None
    was_published_before_removal: bool = False
    # The ids of its pictures.
    media: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.was_published = self.published


@dataclass
class Comment:
    """A comment of the model. Without an owner, it is a tombstone."""

    id: int
    post: int
    parent: int | None
    owner: int | None
    content: str
    depth: int
    version: int = 1
    voters: set[int] = field(default_factory=set)
    removal: str | None = None


@dataclass(eq=False)
class Notification:
    """A notification of the model: of a comment, a mention in a post, a follow, or, without an actor, of moderators."""

    recipient: int
    kind: str
    actor: int | None
    post: int | None
    comment: int | None
    is_read: bool = False


@dataclass(eq=False)
class Report:
    """A report of the model. `resolution` has the action, its place in time, and the moderator."""

    id: int
    reporter: int
    # The field of its id in the API, and the id.
    thing: tuple[str, int]
    resolution: tuple[str, int, int] | None = None


@dataclass
class Picture:
    """A picture of the model, as the API shows it."""

    owner: int
    shown: dict[str, object]
    post: int | None = None
    is_avatar: bool = False


@dataclass
class Site:
    accounts: dict[int, Account] = field(default_factory=dict)
    posts: dict[int, Post] = field(default_factory=dict)
    # (post, user), in the order in which the votes were cast.
    votes: dict[tuple[int, int], None] = field(default_factory=dict)
    # Pairs of a tag and a user.
    follows: set[tuple[str, int]] = field(default_factory=set)
    # Pairs of users: who follows or has blocked whom. Of bookmarks, the newest last: (post, user).
    follows_of_people: set[tuple[int, int]] = field(default_factory=set)
    blocks: set[tuple[int, int]] = field(default_factory=set)
    bookmarks: dict[tuple[int, int], None] = field(default_factory=dict)
    comments: dict[int, Comment] = field(default_factory=dict)
    # The newest last.
    notifications: list[Notification] = field(default_factory=list)
    # Pairs of a post and a user.
    mutes: set[tuple[int, int]] = field(default_factory=set)
    reports: dict[int, Report] = field(default_factory=dict)
    # Of each act of a moderator: who, what, and the ids of the account, the post and the comment. The newest last.
    log: list[tuple[int, str, int | None, int | None, int | None]] = field(default_factory=list)
    pictures: dict[int, Picture] = field(default_factory=dict)

    def count(self, post_id: int) -> int:
        return sum(voted == post_id for voted, _ in self.votes)

    def sees(self, reader: Account, post_id: int) -> bool:
        post = self.posts.get(post_id)
        return post is not None and (post.published or post.owner == reader.id or reader.is_moderator)

    def hides(self, reader: Account, user_id: int | None) -> bool:
        """Return whether the reader's lists leave out what this user wrote."""
        return (reader.id, user_id) in self.blocks and not reader.is_moderator

    def profile(self, reader: Account, account: Account) -> dict[str, object]:
        avatars = [each.shown for each in self.pictures.values() if each.owner == account.id and each.is_avatar]
        return {
            "avatar": avatars[0] if avatars else None,
            "posts": sum(post.published for post in self.posts.values() if post.owner == account.id),
            "followers": sum(followee == account.id for _, followee in self.follows_of_people),
            "following": sum(follower == account.id for follower, _ in self.follows_of_people),
            "followed": (reader.id, account.id) in self.follows_of_people,
            "blocked": (reader.id, account.id) in self.blocks,
        }

    def forget_account(self, user_id: int) -> None:
        del self.accounts[user_id]
        self.reports = {key: report for key, report in self.reports.items() if report.reporter != user_id}
        self.pictures = {key: picture for key, picture in self.pictures.items() if picture.owner != user_id}
        self.follows_of_people = {pair for pair in self.follows_of_people if user_id not in pair}
        self.blocks = {pair for pair in self.blocks if user_id not in pair}
        self.bookmarks = {pair: None for pair in self.bookmarks if pair[1] != user_id}
        self.notifications = [each for each in self.notifications if each.recipient != user_id]
        self.mutes = {pair for pair in self.mutes if pair[1] != user_id}
        self.votes = {pair: None for pair in self.votes if pair[1] != user_id}
        self.follows = {pair for pair in self.follows if pair[1] != user_id}
        for post_id in [post.id for post in self.posts.values() if post.owner == user_id]:
            self.forget_post(post_id)
        for comment in self.comments.values():
            comment.voters.discard(user_id)
        for comment_id in [comment.id for comment in self.comments.values() if comment.owner == user_id]:
            self.forget_comment(comment_id)

    def forget_post(self, post_id: int) -> None:
        del self.posts[post_id]
        self.pictures = {key: picture for key, picture in self.pictures.items() if picture.post != post_id}
        self.comments = {key: comment for key, comment in self.comments.items() if comment.post != post_id}
        self.votes = {pair: None for pair in self.votes if pair[0] != post_id}
        self.bookmarks = {pair: None for pair in self.bookmarks if pair[0] != post_id}
        self.notifications = [each for each in self.notifications if each.post != post_id]
        self.mutes = {pair for pair in self.mutes if pair[0] != post_id}

    def forget_comment(self, comment_id: int) -> None:
        """Make it a tombstone; remove tombstones without replies, from it upwards."""
        comment: Comment | None = self.comments[comment_id]
        assert comment is not None
        comment.owner, comment.content, comment.version = None, "", comment.version + 1
        comment.removal = None
        self.notifications = [each for each in self.notifications if each.comment != comment_id]
        while comment is not None and comment.owner is None and not self.replies(comment.post, comment.id):
            del self.comments[comment.id]
            comment = self.comments[comment.parent] if comment.parent is not None else None

    def notify(
        self, actor: int, names: Iterable[str], *, post: int | None = None, comment: int | None = None,
        others: Iterable[tuple[int | None, str]] = (),
    ) -> None:  # fmt: skip
        """Notify these users, and those with these names: once each, by the first kind that applies."""
        mentioned = [each.id for each in self.accounts.values() if each.username.lower() in names]
        kinds: dict[int, str] = {}
        for user_id, kind in (*others, *((user_id, "mention") for user_id in mentioned)):
            if user_id is not None:
                kinds.setdefault(user_id, kind)
        for user_id, kind in kinds.items():
            has_blocked = self.blocks & {(actor, user_id), (user_id, actor)}
            if user_id == actor or has_blocked or (post, user_id) in self.mutes:
                continue
            notification = Notification(user_id, kind, actor, post, comment)
            if not any(self._has_same_cause(each, notification) for each in self.notifications):
                self.notifications.append(notification)

    def notify_of_moderation(self, user_id: int, post: int | None = None, comment: int | None = None) -> None:
        """Notify the user, unless they have the same unread."""
        unread = [each for each in self.notifications if each.kind == "moderation" and not each.is_read]
        if (user_id, post, comment) not in {(each.recipient, each.post, each.comment) for each in unread}:
            self.notifications.append(Notification(user_id, "moderation", None, post, comment))

    @staticmethod
    def _has_same_cause(one: Notification, other: Notification) -> bool:
        if "moderation" in {one.kind, other.kind}:
            return False
        if "follow" in {one.kind, other.kind}:
            return (one.recipient, one.kind, one.actor) == (other.recipient, other.kind, other.actor)
        return (one.recipient, one.post, one.comment) == (other.recipient, other.post, other.comment)

    def shown_notifications(self, reader: Account) -> list[Notification]:
        """The reader's notifications that are shown, newest first."""
        return [
            each
            for each in self.notifications[::-1]
            if each.recipient == reader.id
            and (each.actor is None or each.actor in self.accounts)
            and not self.blocks & {(reader.id, each.actor), (each.actor, reader.id)}
            and (each.post is None or self.posts[each.post].published or self.posts[each.post].owner == reader.id)
            and (each.comment is None or self._is_text_for(reader.id, self.comments[each.comment]))
        ]

    @staticmethod
    def _is_text_for(user_id: int, comment: Comment) -> bool:
        return comment.removal is None or comment.owner == user_id

    def shows_text(self, reader: Account, comment: Comment) -> bool:
        """Return whether the comment is no tombstone for the reader."""
        return comment.owner is not None and (reader.is_moderator or self._is_text_for(reader.id, comment))

    def is_removed_leaf(self, reader: Account, comment: Comment) -> bool:
        """Return whether the reader does not see the comment at all, as nothing is below it."""
        is_tombstone = comment.owner is not None and not self.shows_text(reader, comment)
        return is_tombstone and not self.replies(comment.post, comment.id)

    def replies(self, post_id: int, parent_id: int | None, sort: str = "old") -> list[Comment]:
        found = [each for each in self.comments.values() if (each.post, each.parent) == (post_id, parent_id)]
        if sort == "old":
            return found
        return sorted(found, key=lambda each: (len(each.voters) if sort == "top" else 0, each.id), reverse=True)

    def thread(
        self, reader: Account, post_id: int, parent_id: int | None, sort: str, depth: int, *, is_whole: bool = True
    ) -> list[object]:
        """Return the comments as the API shows them, but for the times: all, or of the first five."""
        return [
            self.shown_comment(reader, each)
            | {"replies": self.thread(reader, post_id, each.id, sort, depth - 1, is_whole=False) if depth else []}
            for each in self.replies(post_id, parent_id, sort)[: None if is_whole else 5]
            if not self.hides(reader, each.owner) and not self.is_removed_leaf(reader, each)
        ]

    def comments_of(self, reader: Account, owner: Account) -> list[Comment]:
        """Return the comments of the owner's list, newest first."""
        return [
            each
            for each in self.comments.values()
            if each.owner == owner.id
            and self.sees(reader, each.post)
            and self.shows_text(reader, each)
            and not self.hides(reader, owner.id)
        ][::-1]

    def shown_comment(self, reader: Account, comment: Comment) -> dict[str, object]:
        author = self.accounts[comment.owner] if comment.owner and self.shows_text(reader, comment) else None
        replies = [each for each in self.replies(comment.post, comment.id) if not self.is_removed_leaf(reader, each)]
        return {
            "id": comment.id,
            "post_id": comment.post,
            "parent_id": comment.parent,
            "depth": comment.depth,
            "content": comment.content if author else "",
            "author": self.shown_account(reader, author) if author else None,
            "deleted": author is None,
            "votes": len(comment.voters),
            "voted": reader.id in comment.voters,
            "reply_count": len(replies),
            "removal_reason": comment.removal if author else None,
        }

    def shown_account(self, reader: Account, account: Account) -> dict[str, object]:
        email = account.email if account.id == reader.id else f"{account.username}@users.noreply.example.com"
        return {"id": account.id, "username": account.username, "email": email}

    def publish(self, post_id: int) -> None:
        """Note that the post is public. Only the first publication sets its place in time."""
        if not self.posts[post_id].was_published:
            self.posts[post_id] = self.posts.pop(post_id)
            self.posts[post_id].was_published = True

    def ban(self, moderator: Account, account: Account) -> None:
        account.is_banned, account.is_signed_in = True, False
        self.notify_of_moderation(account.id)
        self.log.append((moderator.id, "ban", account.id, None, None))

    def remove_post(self, moderator: Account, post: Post, reason: str) -> None:
        if post.removal is None:
            post.was_published_before_removal = post.published
        post.published, post.removal = False, reason
        self._end_moderation(moderator, "remove", post)

    def restore_post(self, moderator: Account, post: Post) -> None:
        if post.removal is not None:
            post.published, post.removal = post.was_published_before_removal, None
            self._end_moderation(moderator, "restore", post)

    def remove_comment(self, moderator: Account, comment: Comment, reason: str) -> None:
        comment.removal = reason
        self._end_moderation(moderator, "remove", comment)

    def restore_comment(self, moderator: Account, comment: Comment) -> None:
        if comment.removal is not None:
            comment.removal = None
            self._end_moderation(moderator, "restore", comment)

    def _end_moderation(self, moderator: Account, action: str, thing: Post | Comment) -> None:
        thing.version += 1
        assert thing.owner is not None
        post, comment = (thing.id, None) if isinstance(thing, Post) else (thing.post, thing.id)
        if thing.owner != moderator.id:
            self.notify_of_moderation(thing.owner, post, comment)
        self.log.append((moderator.id, action, thing.owner, post, comment))

    def answer_to_change(self, caller: Account, post_id: int, versions: set[int] | None, *, is_allowed: bool) -> int:
        """Return the status with which a change of the post is refused, or 200."""
        if not self.sees(caller, post_id):
            return 404
        if not is_allowed:
            return 403
        return 412 if versions is not None and self.posts[post_id].version not in versions else 200

    def page(
        self, reader: Account, sort: str = "new", *, drafts: bool = False, owner: int | None = None, search: str = "",
        tag: str = "",
    ) -> list[int]:  # fmt: skip
        """The ids of all posts that are on the list, in order."""
        if drafts and owner is None:
            owner = reader.id
        finds_parts = not drafts and not any(post.published and matches(post, search) for post in self.posts.values())
        found = [
            post.id
            for post in self.posts.values()
            if post.published != drafts
            and owner in {None, post.owner}
            and (not tag or tag in post.tags)
            and (not drafts or post.owner == reader.id or reader.is_moderator)
            and matches(post, search, finds_parts=finds_parts)
        ]
        if sort == "top":
            found.sort(key=lambda post_id: (self.count(post_id), post_id))
        return found if sort == "old" else found[::-1]

    def home(self, reader: Account) -> list[int]:
        """The posts of users and tags that the reader follows, and the reader's own, newest first."""
        users = {reader.id, *(followed for follower, followed in self.follows_of_people if follower == reader.id)}
        tags = {name for name, follower in self.follows if follower == reader.id}
        posts = (self.posts[post_id] for post_id in self.page(reader))
        return [post.id for post in posts if post.owner in users or tags & {*post.tags}]

    def tags(self) -> dict[str, int]:
        """Return how many published posts each tag has."""
        return dict(Counter(tag for post in self.posts.values() if post.published for tag in post.tags))

    def votes_of(self, voter: Account) -> list[int]:
        """The published posts that they voted for, newest vote first."""
        return self._shown_of(voter, self.votes)

    def bookmarks_of(self, owner: Account) -> list[int]:
        """The published posts that they bookmarked, newest bookmark first."""
        return self._shown_of(owner, self.bookmarks)

    def _shown_of(self, reader: Account, pairs: Iterable[tuple[int, int]]) -> list[int]:
        mine = [self.posts[post_id] for post_id, user in pairs if user == reader.id]
        return [post.id for post in mine if post.published and not self.hides(reader, post.owner)][::-1]

    def shown_page(self, reader: Account, post_ids: list[int]) -> list[dict[str, object]]:
        """Return the posts of a page as the API shows them, without those of users whom the reader has blocked."""
        return [self.shown(reader, each) for each in post_ids if not self.hides(reader, self.posts[each].owner)]

    def shown(self, reader: Account, post_id: int) -> dict[str, object]:
        """Return the post as the API shows it, but for the times."""
        post = self.posts[post_id]
        owner = self.accounts[post.owner]
        flat = {"id": post.id, "title": post.title, "content": post.content, "published": post.published}
        whose = {"owner_id": owner.id, "owner": self.shown_account(reader, owner), "tags": post.tags}
        whose |= {"removal_reason": post.removal, "locked": post.is_locked}
        counted = [each for each in self.comments.values() if each.post == post_id and each.owner is not None]
        return {
            "Post": flat | whose | {"media": [self.pictures[each].shown for each in post.media]},
            "votes": self.count(post_id),
            "comments": sum(each.removal is None for each in counted),
            "voted": (post_id, reader.id) in self.votes,
            "bookmarked": (post_id, reader.id) in self.bookmarks,
        }


def names_in(*texts: str) -> set[str]:
    """Return the usernames that the texts mention."""
    return {word[1:].lower() for text in texts for word in text.split() if word.startswith("@")}


def matches(post: Post, search: str, *, finds_parts: bool = False) -> bool:
    """Return whether it has all words, of which the last may be unfinished.

    With `finds_parts`, a word may also be a part of a word of the title.
    """
    words = f"{post.title} {post.content}".lower().split()
    *whole, last = search.lower().split() or [""]

    def is_part(part: str) -> bool:
        return finds_parts and any(part in word for word in post.title.lower().split())

    return all(word in words or is_part(word) for word in whole) and (
        any(word.startswith(last) for word in words) or is_part(last)
    )
