"""The site of `python -m app seed --demo`, on a real database and a folder of its own."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.cli import demo
from app.config import get_settings
from app.dev.seed import CannotSeed
from tests.fixtures import Person


def test_the_demo_has_threads_votes_and_pictures_and_is_added_once(
    client: TestClient,
    connection: Connection,
    person: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")

    address = demo.add_demo("not a hash")

    posts = client.get("/posts?sort=new&limit=50", headers=person.headers).json()
    assert [item["Post"]["title"] for item in posts] == [written.title for written in reversed(demo.POSTS)]
    assert [item["votes"] for item in posts] == [written.votes for written in reversed(demo.POSTS)]
    shown = posts[1]["Post"]["media"]
    assert [picture["alt"] for picture in shown] == [alt for _, alt in demo.POSTS[-2].scenes]
    assert client.get(shown[0]["preview_url"]).status_code == 200
    thread = client.get(f"/posts/{posts[0]['Post']['id']}/comments?sort=old&depth=3", headers=person.headers).json()
    assert [comment["content"] for comment in thread] == [said.content for said in demo.POSTS[-1].comments]
    assert thread[2]["replies"][0]["votes"] == demo.POSTS[-1].comments[2].replies[0].votes
    role = text("SELECT role FROM users WHERE email = :address")
    assert connection.scalar(role, {"address": address}) == "moderator"
    with pytest.raises(CannotSeed, match="already"):
        demo.add_demo("not a hash")
