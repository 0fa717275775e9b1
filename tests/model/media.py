"""Rules of pictures: upload them, show them on posts and profiles, and delete them."""

import sys

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, multiple, precondition, rule

from app.services import media
from tests import pictures as made_pictures
from tests.model.machine import Machine, without_times
from tests.model.moderation import Moderated
from tests.model.site import Account, Picture

FILE = made_pictures.png(8, 4)
# Each is decoded by a process of its own, which takes most of the time of a short life.
MAX_UPLOADS = 3


class Pictured(Moderated):
    pictures: Bundle[int] = Bundle("pictures")

    def __init__(self) -> None:
        super().__init__()
        # The addresses of all pictures that there were.
        self.uploaded: set[str] = set()

    @precondition(lambda self: len(self.uploaded) < MAX_UPLOADS)
    @rule(target=pictures, person=Machine.people, alt=st.sampled_from(["", "Two boats"]))
    def upload(self, person: Account, alt: str) -> int | MultipleResults[int]:
        answer = self.ask(person, "POST", "/media", files={"file": ("a.png", FILE)}, data={"alt": alt})
        if self.is_gone(person, answer):
            return multiple()
        shown = answer.json()
        assert (answer.status_code, shown["alt"], shown["width"], shown["height"]) == (201, alt or None, 8, 4)
        self.site.pictures[shown["id"]] = Picture(person.id, shown)
        self.uploaded.add(shown["url"])
        return int(shown["id"])

    @rule(
        person=Machine.people, post_id=Machine.posts, first=st.none() | pictures, second=st.none() | pictures,
    )  # fmt: skip
    def show_on_post(self, person: Account, post_id: int, first: int | None, second: int | None) -> None:
        """Let the post show these pictures and no others."""
        person, picture = self.with_picture(person, first)
        own = [post.id for post in self.site.posts.values() if post.owner == person.id]
        post_id = own[-1] if picture is not None and own else post_id
        wanted = [each for each in dict.fromkeys((first, second)) if each is not None]
        answer = self.ask(person, "PATCH", f"/posts/{post_id}", json={"media_ids": wanted})
        if self.is_gone(person, answer):
            return
        post = self.site.posts.get(post_id)
        is_own = post is not None and post.owner == person.id
        refused = self.site.answer_to_change(person, post_id, None, is_allowed=is_own)
        if post is None or refused != 200:
            assert answer.status_code == refused
            return
        found = [self.site.pictures.get(each) for each in wanted]
        if any(each is None or each.owner != person.id for each in found):
            assert (answer.status_code, answer.json()["code"]) == (404, "media_not_found")
            return
        if any(each is not None and (each.is_avatar or each.post not in {None, post_id}) for each in found):
            assert (answer.status_code, answer.json()["code"]) == (409, "media_in_use")
            return
        assert answer.status_code == 200
        post.version += post.media != wanted
        post.media = wanted
        for media_id, each in self.site.pictures.items():
            if each.post == post_id or media_id in wanted:
                each.post = post_id if media_id in wanted else None
        assert answer.headers["ETag"] == f'"{post.version}"'
        assert without_times(answer.json()) == self.site.shown(person, post_id)["Post"]

    def with_picture(self, person: Account, media_id: int | None) -> tuple[Account, Picture | None]:
        """Return the picture's owner, for most people, and the picture: else hardly any would be the person's own."""
        picture = self.site.pictures.get(media_id or 0)
        if picture is not None and person.id % 3:
            person = self.site.accounts[picture.owner]
        return person, picture

    @rule(person=Machine.people, media_id=st.none() | pictures)
    def show_on_profile(self, person: Account, media_id: int | None) -> None:
        person, picture = self.with_picture(person, media_id)
        body = None if media_id is None else {"media_id": media_id}
        answer = self.ask(person, "DELETE" if body is None else "PUT", "/users/me/avatar", json=body)
        if self.is_gone(person, answer):
            return
        if media_id is not None and (picture is None or picture.owner != person.id):
            assert (answer.status_code, answer.json()["code"]) == (404, "media_not_found")
            return
        if picture is not None and picture.post is not None:
            assert (answer.status_code, answer.json()["code"]) == (409, "media_in_use")
            return
        for each in self.site.pictures.values():
            if each.owner == person.id:
                each.is_avatar = each is picture
        assert answer.json() == {"avatar": None if picture is None else picture.shown}

    @rule(person=Machine.people, media_id=pictures, alt=st.none() | st.just("Three boats"))
    def describe_or_delete_picture(self, person: Account, media_id: int, alt: str | None) -> None:
        """Describe the picture with this text, or delete it."""
        person, picture = self.with_picture(person, media_id)
        body = None if alt is None else {"alt": alt}
        answer = self.ask(person, "DELETE" if body is None else "PATCH", f"/media/{media_id}", json=body)
        if self.is_gone(person, answer):
            return
        if picture is None or picture.owner != person.id:
            assert (answer.status_code, answer.json()["code"]) == (404, "media_not_found")
            return
        post = self.site.posts.get(picture.post or 0)
        if alt is None:
            assert answer.status_code == 204
            del self.site.pictures[media_id]
            if post is not None:
                post.media = [each for each in post.media if each != media_id]
                post.version += 1
        else:
            if post is not None:
                post.version += picture.shown["alt"] != alt
            picture.shown["alt"] = alt
            assert answer.json() == picture.shown

    @rule(person=Machine.people)
    def list_pictures(self, person: Account) -> None:
        answer = self.ask(person, "GET", "/media", params={"limit": 100})
        if not self.is_gone(person, answer):
            own = [each.shown for each in self.site.pictures.values() if each.owner == person.id]
            assert answer.json() == own[::-1]

    def teardown(self) -> None:
        super().teardown()
        if sys.exc_info()[0] is not None:
            return
        media.remove_files()
        kept = {str(each.shown["url"]) for each in self.site.pictures.values()}
        files = made_pictures.files()
        assert {url for url in self.uploaded if url.rsplit("/", 1)[1] in files} == kept
