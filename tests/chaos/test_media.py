"""Crashes while users upload, show and delete pictures, and moderators remove and restore what they show."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from app.media.storage import files_of
from tests import pictures
from tests.chaos.conftest import Postgres
from tests.chaos.load import Answer, Answers, Client, for_seconds, press
from tests.chaos.test_faults import clients_of, processes_of, while_something_happens
from tests.figures import Figure
from tests.fixtures import Person, Server

Start = Callable[..., Server]
ROUNDS = 3
ROUND_SECONDS = 8
SETTLED_WITHIN_SECONDS = 60
NAME_LENGTH = 32
MODERATOR_COUNT = 3
_FORM = (
    b'--part\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + pictures.png()
    + b"\r\n--part--\r\n"
)


class Editors:
    """Authors with pictures and moderators, and what they know of the outcome.

    An outcome without a response is unknown. Each thing is changed by one client.
    """

    def __init__(self, people: list[Person]) -> None:
        self.people = people
        self.acknowledged: dict[str, int] = {}
        # The pictures that must be there, those of each author that no post shows yet, and the posts with theirs.
        self.kept: set[int] = set()
        self.unused: dict[int, list[int]] = {}
        self.media_of: dict[int, int] = {}
        self.posts: list[int] = []
        self.comments: list[int] = []
        # Whether each is removed; None: unknown.
        self.removed: dict[tuple[str, int], bool | None] = {}
        self._turn = 0

    async def act(self, client: Client, number: int) -> Answer:
        self._turn += 1
        moderator = number - (len(self.people) - MODERATOR_COUNT)
        kind, things = ("posts", self.posts) if self._turn % 2 else ("comments", self.comments)
        if moderator < 0:
            return await self._write(client, number)
        own = [each for each in things if each % MODERATOR_COUNT == moderator]
        if own:
            return await self._moderate(client, kind, own[self._turn // 2 % len(own)])
        # What moderators wrote themselves, they could not restore.
        return await client.send("GET", "/reports")

    async def _write(self, client: Client, number: int) -> Answer:
        unused = self.unused.setdefault(number, [])
        turn = self._turn % 8
        if turn == 0 and self.posts:
            return await self._comment(client)
        if turn == 1 and self.posts:
            return await self._told(client, "report", "POST", "/reports", {"post_id": self.posts[-1], "reason": "Spam"})
        if turn == 2 and unused:
            media_id = unused.pop()
            self.kept.discard(media_id)
            return await self._told(client, "delete", "DELETE", f"/media/{media_id}")
        if turn in {3, 4, 5} and unused:
            return await self._show(client, unused.pop())
        answer = await self._told(client, "upload", "POST", "/media", _FORM)
        if answer.status == 201:
            unused.append(answer.json["id"])
            self.kept.add(answer.json["id"])
        return answer

    async def _comment(self, client: Client) -> Answer:
        path = f"/posts/{self.posts[self._turn % len(self.posts)]}/comments"
        answer = await self._told(client, "comment", "POST", path, {"content": "content"})
        if answer.status == 201:
            self.comments.append(answer.json["id"])
        return answer

    async def _show(self, client: Client, media_id: int) -> Answer:
        body = {"title": "title", "content": "content", "media_ids": [media_id]}
        answer = await self._told(client, "post", "POST", "/posts", body)
        if answer.status != 201:
            return answer
        post_id = answer.json["id"]
        if self._turn % 3:
            self.posts.append(post_id)
            return answer
        # The picture of every third post is deleted with it, or taken off it.
        self.kept.discard(media_id)
        if self._turn % 2:
            return await self._told(client, "delete", "DELETE", f"/posts/{post_id}")
        return await self._told(client, "detach", "PATCH", f"/posts/{post_id}", {"media_ids": []})

    async def _moderate(self, client: Client, kind: str, thing_id: int) -> Answer:
        action = "restore" if self.removed.get((kind, thing_id)) else "remove"
        body = {"reason": "Spam"} if action == "remove" else None
        answer = await self._told(client, action, "POST", f"/{kind}/{thing_id}/{action}", body)
        self.removed[kind, thing_id] = action == "remove" if answer.status == 200 else None
        return answer

    async def _told(self, client: Client, what: str, method: str, path: str, body: object = None) -> Answer:
        media_type = "multipart/form-data; boundary=part" if isinstance(body, bytes) else None
        answer = await client.send(method, path, body, media_type=media_type)
        self.acknowledged[what] = self.acknowledged.get(what, 0) + (answer.status in {200, 201, 204})
        return answer

    def assert_nothing_lost(self, postgres: Postgres) -> None:
        with postgres.connect() as connection:
            stored = {*connection.scalars(text("SELECT id FROM media"))}
            assert self.kept - stored == set()
            for table in ("posts", "comments"):
                found = connection.execute(text(f"SELECT id, removal_reason IS NOT NULL AS is_removed FROM {table}"))
                state = {row.id: row.is_removed for row in found}
                known = {
                    thing_id: is_removed
                    for (kind, thing_id), is_removed in self.removed.items()
                    if kind == table and is_removed is not None
                }
                assert known == {thing_id: state[thing_id] for thing_id in known}


@pytest.mark.slow
def test_files_rows_and_counts_agree_after_crashes_of_servers_and_postgres(
    start: Start, postgres: Postgres, people: list[Person], tmp_path: Path, figure: Figure
) -> None:
    folder = tmp_path / "media"
    # With the background worker, which removes files.
    settings = {"WORKERS": "2", "MEDIA_ROOT": str(folder), "CLEANUP_INTERVAL_MINUTES": "60"}
    with postgres.connect() as connection:
        connection.execute(text("DELETE FROM media_removals"))
        moderators = [person.id for person in people[-MODERATOR_COUNT:]]
        connection.execute(text("UPDATE users SET role = 'moderator' WHERE id = ANY (:ids)"), {"ids": moderators})
    editors = Editors(people)
    pending = 0
    for _ in range(ROUNDS):
        server = start(**settings)

        def kill_worker(server: Server = server) -> None:
            psutil.Process(server.process.pid).children()[-1].kill()

        def crash() -> None:
            postgres.stop(signal.SIGQUIT)
            postgres.start()

        def kill(server: Server = server) -> None:
            for pid in processes_of(server) | {server.process.pid}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            server.process.wait()

        async def run(server: Server = server, kill_worker: Callable[[], None] = kill_worker) -> Answers:
            load = asyncio.create_task(press(clients_of(server, people), editors.act, until=for_seconds(ROUND_SECONDS)))
            return await while_something_happens(load, kill_worker, crash)

        async def run_until_killed(server: Server = server, kill: Callable[[], None] = kill) -> Answers:
            load = asyncio.create_task(press(clients_of(server, people), editors.act, until=for_seconds(2)))
            return await while_something_happens(load, kill)

        answers = asyncio.run(run()).all + asyncio.run(run_until_killed()).all
        statuses = {answer.status for answer in answers}
        assert statuses <= {0, 200, 201, 204, 404, 409, 503}, Answers(answers).statuses
        editors.assert_nothing_lost(postgres)
        _, removals = assert_files_have_rows(postgres, folder)
        pending += len(removals)
    assert min(editors.acknowledged.get(what, 0) for what in ("upload", "post", "delete", "remove", "restore")) > ROUNDS
    assert recount_is_clean(postgres)

    with postgres.connect() as connection:
        # As an hour later.
        connection.execute(text("UPDATE media_removals SET due_at = now()"))
    start(**settings)
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    while (found := assert_files_have_rows(postgres, folder))[1] and time.monotonic() < deadline:
        time.sleep(0.2)
    rows, removals = found
    assert removals == set()
    assert {file.name for file in stored_in(folder)} == {file for name in rows for file in files_of(name)}
    figure(
        f"{editors.acknowledged} acknowledged, {3 * ROUNDS} crashes: none lost, 0 counts wrong, {len(rows)} pictures "
        f"with their files, no other files but those of {pending} pending removals, and none of these in the end"
    )


def stored_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def assert_files_have_rows(postgres: Postgres, folder: Path) -> tuple[set[str], set[str]]:
    """Compare files, pictures and pending removals, and return the names of the pictures and of the removals.

    The files are listed between two readings of the rows, because a server may be removing some.
    """
    with postgres.connect() as connection:
        before = {*connection.scalars(text("SELECT name FROM media_removals"))}
        files = {file.name for file in stored_in(folder)}
        rows = {*connection.scalars(text("SELECT name FROM media"))}
        removals = {*connection.scalars(text("SELECT name FROM media_removals"))}
        of_posts = text("SELECT count(*) FROM posts WHERE media IS DISTINCT FROM media_of_post(id)")
        assert connection.scalar(of_posts) == 0
    assert {file for name in rows for file in files_of(name)} <= files, "a picture without its files"
    assert {file[:NAME_LENGTH] for file in files} <= rows | before, "a file that nothing will remove"
    return rows, removals


def recount_is_clean(postgres: Postgres) -> bool:
    url = postgres.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "app", "recount", "--check"]
    recount = subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, capture_output=True, check=False)
    return recount.returncode == 0
