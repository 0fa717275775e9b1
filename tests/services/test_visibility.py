"""One rule decides which posts a caller may see: ordinary services and the fast path of reads agree on it."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app import models
from app.database.engines import get_engine
from tests.fixtures import Person


@pytest.mark.parametrize("is_owner_deleted", [False, True])
@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("viewer", ["owner", "user", "moderator", "admin"])
def test_condition_holds_for_exactly_the_posts_that_the_viewer_can_get(
    client: TestClient,
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    viewer: str,
    published: bool,
    is_owner_deleted: bool,
) -> None:
    owner = make_person()
    post_id = make_post(owner, published=published)
    reader = owner if viewer == "owner" else make_person(role=viewer)
    if is_owner_deleted:
        connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": owner.id})

    with Session(get_engine()) as db:
        account = db.get_one(models.User, reader.id)
        found = db.scalars(select(models.Post.id).where(models.Post.visible_to(account))).all()

    may_see = not is_owner_deleted and (published or viewer != "user")
    assert found == ([post_id] if may_see else [])
    if not (is_owner_deleted and viewer == "owner"):  # Nothing signs in a deleted account.
        assert client.get(f"/posts/{post_id}", headers=reader.headers).status_code == (200 if may_see else 404)


def test_key_of_a_moderator_sees_no_drafts_of_others(
    make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    make_post(make_person(), published=False)
    moderator = make_person(role="moderator")

    with Session(get_engine()) as db:
        account = db.get_one(models.User, moderator.id)
        account.acts_through_key = True
        assert db.scalars(select(models.Post.id).where(models.Post.visible_to(account))).all() == []
