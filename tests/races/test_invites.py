"""Invites under concurrency, on two servers: each use makes one account."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from app.config import get_settings
from tests.fixtures import PASSWORD, Person, Server
from tests.races.conftest import Call, Crowd, count, statuses


@pytest.fixture
def closed_crowd(start_server: Callable[..., Server]) -> Crowd:
    """Two servers on which signing up needs an invite."""
    return Crowd([start_server(REGISTRATION="invite", RATE_LIMITS_ENABLED="false") for _ in range(2)])


def sign_up(number: int, token: str, email: str | None = None) -> Call:
    body = {"email": email or f"new{number}@example.com", "password": PASSWORD, "invite": token}
    return Call("POST", "/users", None, body)


def test_of_twenty_sign_ups_at_once_with_one_invite_as_many_succeed_as_it_has_uses(
    closed_crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    moderator = make_person(role="moderator")
    for uses in (1, 3):
        (made,) = closed_crowd.send([Call("POST", "/invites", moderator, {"max_uses": uses})])
        before = count(connection, "users")

        answers = closed_crowd.send([sign_up(uses * 100 + n, made.json()["token"]) for n in range(20)])

        assert statuses(answers) == {201: uses, 403: 20 - uses}
        assert count(connection, "users") == before + uses
        assert count(connection, f"invites WHERE id = {made.json()['id']} AND uses = {uses}") == 1


def test_sign_ups_at_once_with_one_address_use_the_invite_once(
    closed_crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    moderator = make_person(role="moderator")
    (made,) = closed_crowd.send([Call("POST", "/invites", moderator, {"max_uses": 10})])

    answers = closed_crowd.send([sign_up(n, made.json()["token"], "same@example.com") for n in range(10)])

    assert statuses(answers) == {201: 1, 409: 9}
    assert connection.scalar(text("SELECT uses FROM invites")) == 1


def test_invites_created_at_once_stay_within_the_quota(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    moderator = make_person(role="moderator")
    maximum = get_settings().invites_max

    answers = crowd.send([Call("POST", "/invites", moderator, {"max_uses": maximum})] * 20)

    assert statuses(answers) == {201: 1, 409: 19}
    assert count(connection, "invites") == 1


def test_a_moderator_who_loses_the_role_meanwhile_creates_no_invite(
    crowd: Crowd, connection: Connection, make_person: Callable[..., Person]
) -> None:
    moderator = make_person(role="moderator")
    calls = [Call("POST", "/invites", moderator, {})] * 10
    admin = make_person(role="admin")

    crowd.send([*calls[:5], Call("PATCH", f"/users/{moderator.id}", admin, {"role": "user"}), *calls[5:]])
    before = count(connection, "invites")
    late = crowd.send(calls)

    assert statuses(late) == {403: 10}
    assert count(connection, "invites") == before
