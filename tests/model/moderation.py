"""Rules of moderation: reports, bans, and removed and locked posts and comments."""

from typing import Any

import httpx2
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, multiple, rule

from tests.model.machine import Machine, untimed
from tests.model.site import Account, Report

REASONS = st.sampled_from(["Spam", "Abuse"])


class Moderated(Machine):
    reports: Bundle[int] = Bundle("reports")

    def acting(self, person: Account) -> Account:
        """Return a moderator, for most people: else most answers would be refusals."""
        moderators = [each for each in self.site.accounts.values() if each.is_moderator and each.is_signed_in]
        return moderators[-1] if moderators and person.id % 3 else person

    def is_refused_to(self, person: Account, answer: httpx2.Response, *, clears: int | None = None) -> bool:
        """Return whether the person may not do it, which the response must report.

        They are no moderator, or would clear themselves.
        """
        is_refused = not person.is_moderator or clears == person.id
        if is_refused:
            assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized")
        return is_refused

    @rule(
        person=Machine.people, post_id=Machine.posts, reason=REASONS,
        action=st.sampled_from(["remove", "remove", "restore", "lock", "unlock"]),
    )  # fmt: skip
    def moderate_post(self, person: Account, post_id: int, reason: str, action: str) -> None:
        person = self.acting(person)
        body = {"reason": reason} if action == "remove" else None
        answer = self.ask(person, "POST", f"/posts/{post_id}/{action}", json=body)
        if self.is_gone(person, answer):
            return
        if not self.site.sees(person, post_id):
            assert (answer.status_code, answer.json()["code"]) == (404, "post_not_found")
            return
        post = self.site.posts[post_id]
        if self.is_refused_to(person, answer, clears=post.owner if action == "restore" else None):
            return
        if action == "remove":
            self.site.remove_post(person, post, reason)
        elif action == "restore":
            self.site.restore_post(person, post)
        elif post.is_locked != (action == "lock"):
            post.is_locked = action == "lock"
            post.version += 1
            self.site.log.append((person.id, action, post.owner, post_id, None))
        if action in {"lock", "unlock"}:
            assert answer.json() == {"post_id": post_id, "locked": post.is_locked}
        else:
            removal = reason if action == "remove" else None
            assert answer.json() == {"post_id": post_id, "removed": removal is not None, "reason": removal}

    @rule(
        person=Machine.people, comment_id=Machine.comments, reason=REASONS,
        action=st.sampled_from(["remove", "remove", "restore"]),
    )  # fmt: skip
    def moderate_comment(self, person: Account, comment_id: int, reason: str, action: str) -> None:
        person = self.acting(person)
        body = {"reason": reason} if action == "remove" else None
        answer = self.ask(person, "POST", f"/comments/{comment_id}/{action}", json=body)
        if self.is_gone(person, answer):
            return
        comment = self.live(person, comment_id)
        if comment is None:
            assert (answer.status_code, answer.json()["code"]) == (404, "comment_not_found")
            return
        if self.is_refused_to(person, answer, clears=comment.owner if action == "restore" else None):
            return
        if action == "remove":
            self.site.remove_comment(person, comment, reason)
        else:
            self.site.restore_comment(person, comment)
        state = {"removed": comment.removal is not None, "reason": comment.removal}
        assert answer.json() == {"comment_id": comment_id, **state}
        self.read_comment(next(iter(self.site.accounts.values())), comment_id)

    @rule(person=Machine.people, comment_id=Machine.comments)
    def read_comment(self, person: Account, comment_id: int) -> None:
        answer = self.ask(person, "GET", f"/comments/{comment_id}")
        if self.is_gone(person, answer):
            return
        comment = self.site.comments.get(comment_id)
        if comment is None or not self.site.sees(person, comment.post) or self.site.is_removed_leaf(person, comment):
            assert (answer.status_code, answer.json()["code"]) == (404, "comment_not_found")
        else:
            assert untimed(answer.json()) == self.site.shown_comment(person, comment)

    @rule(person=Machine.people, other=Machine.people, reason=REASONS, action=st.sampled_from(["ban", "unban"]))
    def ban_or_unban(self, person: Account, other: Account, reason: str, action: str) -> None:
        person = self.acting(person)
        body = {"reason": reason} if action == "ban" else None
        answer = self.ask(person, "POST", f"/users/{other.id}/{action}", json=body)
        if self.is_gone(person, answer):
            return
        if other.id not in self.site.accounts:
            assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")
            return
        if not person.is_moderator or other.is_moderator:
            assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized")
            return
        if action == "ban":
            self.site.ban(person, other)
        elif other.is_banned:
            other.is_banned = False
            self.site.notify_of_moderation(other.id)
            self.site.log.append((person.id, action, other.id, None, None))
        state = {"banned": other.is_banned, "until": None, "reason": reason if other.is_banned else None}
        assert answer.json() == {"user_id": other.id, **state}
        assert (self.ask(other, "GET", "/users/me").status_code == 200) == other.is_signed_in

    @rule(person=Machine.people)
    def sign_in_again(self, person: Account) -> None:
        """Begin a session, unless the person is banned. One that a ban has ended stays ended."""
        if person.id not in self.site.accounts:
            return
        answer = self.sign_in(person.email)
        if person.is_banned:
            assert (answer.status_code, answer.json()["code"]) == (403, "banned")
            return
        assert answer.status_code == 200
        assert (self.ask(person, "GET", "/users/me").status_code == 200) == person.is_signed_in
        person.token, person.is_signed_in = answer.json()["access_token"], True

    @rule(
        target=reports, person=Machine.people, post_id=Machine.posts, comment_id=st.none() | Machine.comments,
        other=st.none() | Machine.people,
    )  # fmt: skip
    def report(
        self, person: Account, post_id: int, comment_id: int | None, other: Account | None
    ) -> int | MultipleResults[int]:
        thing = ("post_id", post_id)
        is_seen = self.site.sees(person, post_id)
        if other is not None:
            thing, is_seen = ("user_id", other.id), other.id in self.site.accounts
        elif comment_id is not None:
            thing, is_seen = ("comment_id", comment_id), self.live(person, comment_id) is not None
        answer = self.ask(person, "POST", "/reports", json={thing[0]: thing[1], "reason": "Spam"})
        if self.is_gone(person, answer):
            return multiple()
        if not is_seen:
            assert answer.status_code == 404
            return multiple()
        if any((each.reporter, each.thing) == (person.id, thing) for each in self.open_reports()):
            assert (answer.status_code, answer.json()["code"]) == (409, "already_reported")
            return multiple()
        assert (answer.status_code, answer.json()[thing[0]]) == (201, thing[1])
        report = Report(answer.json()["id"], person.id, thing)
        self.site.reports[report.id] = report
        return report.id

    def open_reports(self) -> list[Report]:
        return [each for each in self.site.reports.values() if each.resolution is None]

    @rule(person=Machine.people, report_id=reports, action=st.sampled_from(["dismiss", "remove", "ban"]))
    def resolve(self, person: Account, report_id: int, action: str) -> None:
        person = self.acting(person)
        answer = self.ask(person, "POST", f"/reports/{report_id}/resolve", json={"action": action, "note": "Spam"})
        if self.is_gone(person, answer):
            return
        report = self.site.reports.get(report_id)
        if report is None:
            assert (answer.status_code, answer.json()["code"]) == (404, "report_not_found")
            return
        if self.is_refused_to(person, answer, clears=self.author_of(person, report) if action == "dismiss" else None):
            return
        refusal = self.refusal_of(person, report, action)
        if refusal is not None:
            assert (answer.status_code, answer.json()["code"]) == refusal
            return
        assert answer.status_code == 200
        self.act_on(person, report, action)
        time = len(self.site.log)
        for each in self.open_reports():
            if each.thing == report.thing:
                each.resolution = (action, time, person.id)
        assert listed(answer.json()) == self.listed(report)

    def refusal_of(self, moderator: Account, report: Report, action: str) -> tuple[int, str] | None:
        kind, _ = report.thing
        author_id = self.author_of(moderator, report)
        if action != "dismiss":
            if action == "remove" and kind == "user_id":
                return 422, "not_removable"
            if author_id is None:
                return 404, {"post_id": "post", "comment_id": "comment", "user_id": "user"}[kind] + "_not_found"
            if action == "ban" and self.site.accounts[author_id].is_moderator:
                return 403, "not_authorized"
        return None if report.resolution is None else (409, "already_resolved")

    def author_of(self, moderator: Account, report: Report) -> int | None:
        kind, thing_id = report.thing
        if kind == "post_id":
            return self.site.posts[thing_id].owner if thing_id in self.site.posts else None
        if kind == "comment_id":
            comment = self.live(moderator, thing_id)
            return None if comment is None else comment.owner
        return thing_id if thing_id in self.site.accounts else None

    def act_on(self, moderator: Account, report: Report, action: str) -> None:
        kind, thing_id = report.thing
        if action == "ban":
            author_id = self.author_of(moderator, report)
            assert author_id is not None
            self.site.ban(moderator, self.site.accounts[author_id])
        elif action == "dismiss":
            ids: dict[str, int | None] = {"user_id": None, "post_id": None, "comment_id": None, kind: thing_id}
            self.site.log.append((moderator.id, action, ids["user_id"], ids["post_id"], ids["comment_id"]))
        elif kind == "post_id":
            self.site.remove_post(moderator, self.site.posts[thing_id], "Spam")
        else:
            self.site.remove_comment(moderator, self.site.comments[thing_id], "Spam")

    @rule(person=Machine.people)
    def list_reports(self, person: Account) -> None:
        for status in ("open", "resolved"):
            answer = self.ask(person, "GET", "/reports", params={"status": status, "limit": 100})
            if self.is_gone(person, answer) or self.is_refused_to(person, answer):
                return
            reports = self.open_reports()
            if status == "resolved":
                reports = [each for each in self.site.reports.values() if each.resolution is not None]
                reports.sort(key=lambda each: ((each.resolution or ("", 0, 0))[1], each.id), reverse=True)
            assert [listed(each) for each in answer.json()] == [self.listed(each) for each in reports]

    def listed(self, report: Report) -> tuple[object, ...]:
        action, _, resolver = report.resolution or (None, None, None)
        return report.id, report.reporter, report.thing, action, resolver if resolver in self.site.accounts else None

    @rule(person=Machine.people)
    def list_log(self, person: Account) -> None:
        answer = self.ask(person, "GET", "/moderation-log", params={"limit": 100})
        if self.is_gone(person, answer) or self.is_refused_to(person, answer):
            return
        assert [
            ((each["moderator"] or {}).get("id"), each["action"], each["user_id"], each["post_id"], each["comment_id"])
            for each in answer.json()
        ] == [
            (moderator if moderator in self.site.accounts else None, *done) for moderator, *done in self.site.log[::-1]
        ]


def listed(report: dict[str, Any]) -> tuple[object, ...]:
    """Return the report as `Moderated.listed` does."""
    (thing,) = [(key, report[key]) for key in ("post_id", "comment_id", "user_id") if report[key] is not None]
    reporter, resolver = ((report[key] or {}).get("id") for key in ("reporter", "resolver"))
    return report["id"], reporter, thing, report["action"], resolver
