"""The newest values of what streams watch. All streams of a worker share them, and their messages."""

from dataclasses import dataclass

from app.schemas.live import LivePost, PostMessage
from app.services.live.snapshot import PostState, UnreadSign

# Of one post, streams get at most two messages a second.
MIN_SECONDS_BETWEEN_VALUES = 0.5


@dataclass(slots=True)
class WatchedPost:
    """The newest value of a post, with the message for users who may see the post, and that for others."""

    text: str
    hidden_text: str
    state: PostState | None = None
    is_known: bool = False
    # Whether streams have yet to show the value, and when they began to show the last one (`time.monotonic`).
    is_new: bool = False
    shown_at: float = 0.0

    @classmethod
    def unknown(cls, post_id: int) -> "WatchedPost":
        """Return a post that no poll has read."""
        text = PostMessage(id=post_id, post=None).model_dump_json()
        return cls(text, text)

    def text_for(self, user_id: int, *, is_moderator: bool) -> str:
        """Return the message for the user: without values where `GET /posts/{id}` is 404."""
        is_visible = self.state is not None and (self.state.published or self.state.owner_id == user_id or is_moderator)
        return self.text if is_visible else self.hidden_text

    def update(self, post_id: int, state: PostState | None, now: float) -> bool:
        """Take the value of a poll, and return whether streams are to show it now."""
        if not self.is_known or state != self.state:
            self.is_new, self.is_known, self.state = self.is_known, True, state
            if state is not None:
                values = LivePost(
                    votes=state.votes, comments=state.comments, version=state.version, published=state.published,
                    locked=state.locked,
                )  # fmt: skip
                self.text = PostMessage(id=post_id, post=values).model_dump_json()
        if not self.is_new or now - self.shown_at < MIN_SECONDS_BETWEEN_VALUES:
            return False
        self.is_new, self.shown_at = False, now
        return True


@dataclass(slots=True)
class WatchedUser:
    """The unread notifications of a user."""

    sign: UnreadSign | None = None
    text: str = "null"
