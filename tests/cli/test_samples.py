"""Pictures, reports and moderation of `python -m app seed`, on a real database and a folder of their own."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.cli import samples
from app.config import get_settings
from app.dev.seed import CannotSeed
from app.services import media, recount
from tests import pictures
from tests.fixtures import Person


@pytest.fixture(autouse=True)
def people(
    make_person: Callable[..., Person], make_post: Callable[..., int], make_comment: Callable[..., int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Person]:  # fmt: skip
    """Users with posts and comments, and an empty folder for pictures."""
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")
    people = [make_person() for _ in range(6)]
    for number in range(40):
        post_id = make_post(people[number % 6])
        if number % 4 == 0:
            make_comment(people[(number + 1) % 6], post_id)
    return people


def ignore(_what: str, _done: int, _total: int) -> None:
    pass


def test_pictures_are_on_new_posts_and_profiles_and_can_be_seen(
    client: TestClient, connection: Connection, people: list[Person]
) -> None:
    samples.add_pictures(8, seed=1, report=ignore)

    found = connection.execute(text("SELECT count(*), count(post_id), count(*) FILTER (WHERE is_avatar) FROM media"))
    assert tuple(found.one()) == (8, 6, 2)
    page = client.get("/posts?limit=100", headers=people[0].headers).json()
    shown = [picture for item in page for picture in item["Post"]["media"]]
    assert len(shown) == 6
    assert all(picture["alt"].startswith("Hills at ") for picture in shown)
    for picture in shown:
        assert client.get(picture["preview_url"]).status_code == 200
    assert len(pictures.files()) == 16
    assert connection.scalar(text("SELECT count(*) FROM media_removals")) == 0


def test_a_seed_draws_the_same_pictures_again_and_they_differ() -> None:
    def drawn(seed: int) -> list[bytes]:
        draw = random.Random(seed)
        return [picture.tobytes() for picture in (samples.landscape(draw, "dusk"), samples.portrait(draw))]

    assert drawn(1) == drawn(1)
    assert not {*drawn(1)} & {*drawn(2)}


def test_reports_led_to_a_removal_a_ban_and_a_lock(
    connection: Connection, client: TestClient, people: list[Person]
) -> None:
    assert samples.add_moderation(6, seed=1, report=ignore) == people[-1].email

    assert connection.execute(
        text("""
            SELECT (SELECT count(*) FROM reports WHERE resolved_at IS NULL),
                (SELECT string_agg(action, ' ' ORDER BY id) FROM reports),
                (SELECT count(*) FROM posts WHERE removal_reason IS NOT NULL AND NOT published),
                (SELECT count(*) FROM posts WHERE locked), (SELECT count(*) FROM users WHERE ban_reason IS NOT NULL),
                (SELECT string_agg(action, ' ' ORDER BY id) FROM moderation_log)
        """)
    ).one() == (3, "remove ban dismiss", 1, 1, 1, "remove ban dismiss lock")
    assert [batch for batch in recount.recount(is_repairing=False) if batch.wrong] == []
    queue = client.get("/reports", headers=people[-1].headers)
    assert (queue.status_code, len(queue.json())) == (200, 3)
    assert {"comment_id", "post_id"} <= {name for each in queue.json() for name, value in each.items() if value}


def test_adding_twice_adds_more(connection: Connection) -> None:
    for _ in range(2):
        samples.add_pictures(4, seed=1, report=ignore)
        samples.add_moderation(6, seed=1, report=ignore)

    assert connection.scalar(text("SELECT count(*) FROM media")) == 8
    assert connection.scalar(text("SELECT count(*) FROM reports")) == 12


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda: samples.add_pictures(1_000, 1, ignore), "pass more --posts"),
        (lambda: samples.add_moderation(1_000, 1, ignore), "1,000 reports need more posts"),
    ],
)
def test_impossible_amounts_are_refused(
    connection: Connection, add: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(text("DELETE FROM posts WHERE id > (SELECT min(id) + 5 FROM posts)"))
    monkeypatch.setattr(samples, "PICTURES_OF_POST", (1,))

    with pytest.raises(CannotSeed, match=message):
        add()


def test_a_full_quota_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "media_max_pictures", 0)

    with pytest.raises(CannotSeed, match=r"0 of 4 pictures were added: .*0 pictures"):
        samples.add_pictures(4, seed=1, report=ignore)

    media.remove_files()
    assert pictures.files() == set()
