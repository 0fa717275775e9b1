"""Rows that other software may have left: no row that can exist makes a list or a sign-in a 500."""

from collections.abc import Callable

import bcrypt
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.services import administration
from tests.fixtures import PASSWORD, Person

BCRYPT = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
SHA256 = "$bcrypt-sha256$v=2,t=2b,r=4$d629GzOXNmWBUT12kV3ixO$4yX4TyHXjjYl4EWNoHdo3UmykvFN/Dy"
DAMAGED_HASHES = {
    "empty": "",
    "plain text": PASSWORD,
    "a prefix alone": "$2b$",
    "no salt": "$2b$04$",
    "a short salt": "$2b$04$" + "." * 10,
    "cut": BCRYPT[:-1],
    "too long": BCRYPT + "x",
    "a cost above bcrypt's": "$2b$99$" + BCRYPT[7:],
    "a cost of days": "$2b$31$" + BCRYPT[7:],
    "a cost below bcrypt's": "$2b$03$" + BCRYPT[7:],
    "a cost that is no number": "$2b$xx$" + BCRYPT[7:],
    "a variant with a bug": "$2x$04$" + BCRYPT[7:],
    "a letter beyond ASCII": BCRYPT[:10] + "é" + BCRYPT[11:],
    "a line break": BCRYPT + "\n",
    "bcrypt-sha256 alone": "$bcrypt-sha256$",
    "bcrypt-sha256 cut": SHA256[:-1],
    "bcrypt-sha256 of an unknown version": SHA256.replace("v=2", "v=9"),
    "bcrypt-sha256 with a cost of days": SHA256.replace("r=4", "r=31"),
    "another scheme": "$argon2id$v=19$m=65536,t=3,p=4$abc$def",
    "surrogate-like text": "\ufffd" * 200,
}
YEARS = {
    "4713-01-01 00:00:00+00 BC": "0001-01-01T00:00:00Z",
    "0044-03-15 00:00:00+00 BC": "0001-01-01T00:00:00Z",
    "10000-01-01 00:00:00+00": "9999-12-31T23:59:59.999999Z",
    "294276-12-31 00:00:00+00": "9999-12-31T23:59:59.999999Z",
    "infinity": "9999-12-31T23:59:59.999999Z",
    "-infinity": "0001-01-01T00:00:00Z",
}


@pytest.mark.parametrize("damaged", DAMAGED_HASHES.values(), ids=DAMAGED_HASHES)
def test_a_damaged_password_hash_is_a_wrong_password_on_every_route(
    client: TestClient, person: Person, connection: Connection, damaged: str
) -> None:
    connection.execute(
        text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"hash": damaged, "id": person.id}
    )

    signed_in = client.post("/login", data={"username": person.email, "password": PASSWORD})
    changed = client.patch(
        "/users/me", json={"password": "another one", "current_password": PASSWORD}, headers=person.headers
    )
    second_factor = client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)

    assert signed_in.status_code == 403, signed_in.text
    assert signed_in.json()["code"] == "invalid_credentials"
    assert (changed.status_code, second_factor.status_code) == (403, 403), changed.text + second_factor.text
    assert connection.scalar(text("SELECT password_hash FROM users WHERE id = :id"), {"id": person.id}) == damaged


@pytest.mark.parametrize("stored", YEARS)
def test_a_time_that_python_cannot_hold_is_answered_as_the_nearest_that_it_can(
    client: TestClient,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    connection: Connection,
    stored: str,
) -> None:
    admin = make_person(role="admin")
    post_id = make_post(admin)
    client.put(f"/posts/{post_id}/vote", headers=admin.headers)
    connection.execute(text("INSERT INTO notifications (user_id, kind) VALUES (:id, 'moderation')"), {"id": admin.id})
    for statement in (
        "UPDATE posts SET created_at = :time, updated_at = :time",
        "UPDATE users SET created_at = :time",
        "UPDATE sessions SET created_at = :time, last_seen_at = :time, ends_at = :time",
        "UPDATE votes SET created_at = :time",
        "UPDATE notifications SET created_at = :time, read_at = :time",
    ):
        connection.execute(text(statement), {"time": stored})

    answers = {
        path: client.get(path, headers=admin.headers)
        for path in (
            "/posts", "/posts?sort=old", "/posts?sort=top", "/posts?sort=hot", f"/posts/{post_id}", "/users",
            "/users/me", "/users/me/votes", "/sessions", "/users/me/security-events", "/notifications",
        )
    }  # fmt: skip

    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    post = answers["/posts"].json()[0]["Post"]
    assert (post["created_at"], post["owner"]["created_at"]) == (YEARS[stored], YEARS[stored])
    assert answers["/sessions"].json()[0]["created_at"] == YEARS[stored]
    assert answers["/notifications"].json()[0]["read_at"] == YEARS[stored]


@pytest.mark.parametrize("path", ["/posts?sort=new", "/posts?sort=old", "/posts?sort=hot", "/users/me/votes?"])
def test_a_walk_meets_each_row_once_whose_time_python_cannot_hold(
    client: TestClient, person: Person, make_post: Callable[..., int], connection: Connection, path: str
) -> None:
    hot = "hot" in path  # Only PostgreSQL 17 and later has a hot score for infinity.
    times = [time for time in YEARS if not (hot and "infinity" in time)] * 2 + [
        "2024-01-01",
        "0001-01-01",
        "9999-12-31",
    ]
    if "votes" in path:  # A walk of votes leaves out those that were cast after it began.
        times = [time for time in times if YEARS.get(time, time) < "2025"]
    posts = [make_post(person) for _ in times]
    for post_id, time in zip(posts, times, strict=True):
        client.put(f"/posts/{post_id}/vote", headers=person.headers)
        for statement in (
            "UPDATE posts SET created_at = :time WHERE id = :id",
            "UPDATE votes SET created_at = :time WHERE post_id = :id",
        ):
            connection.execute(text(statement), {"time": time, "id": post_id})

    def walk(page: str, relation: str) -> tuple[list[int], str]:
        met: list[int] = []
        while len(met) <= len(times):
            answer = client.get(page, headers=person.headers)
            met += [item["Post"]["id"] for item in answer.json()]
            if relation not in answer.links:
                break
            last, page = page, str(answer.url.join(answer.links[relation]["url"]))
        return met, last

    ahead, last_page = walk(f"{path}&limit=1", "next")
    behind, _ = walk(last_page, "prev")

    assert sorted(ahead) == posts
    # The second walk begins at the page before the last.
    assert behind == ahead[-2::-1]


def test_adopted_address_without_an_at_sign_signs_in_before_a_username_of_the_same_letters(
    client: TestClient, make_person: Callable[..., Person], database: Engine
) -> None:
    adopted = make_person(email="Bob the Builder")
    make_person(email="Robert")
    make_person(username="robert")

    for name in ("Bob the Builder", "bob the builder"):
        signed_in = client.post("/login", data={"username": name, "password": PASSWORD})
        assert signed_in.status_code == 200
        headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        assert client.get("/users/me", headers=headers).json()["id"] == adopted.id
    with Session(database) as db:
        robert = administration.find(db, "robert")
        assert robert is not None
        assert robert.email == "Robert"
    headers["Authorization"] = (
        f"Bearer {client.post('/login', data={'username': 'robert', 'password': PASSWORD}).json()['access_token']}"
    )
    assert client.get("/users/me", headers=headers).json()["email"] == "Robert"
    assert client.post("/login", data={"username": "bob", "password": PASSWORD}).status_code == 403


@pytest.mark.parametrize(
    ("event", "details", "listed"),
    [
        ("of_a_newer_release", "{}", None),
        ("", "{}", None),
        ("signed_in", "null", {}),
        ("signed_in", "[]", {}),
        ("signed_in", '"text"', {}),
        ("signed_in", '{"method": "password", "nested": {"a": 1}, "share": 1.5}', {"method": "password"}),
    ],
)
def test_security_events_of_any_kind_and_details_are_listed(
    client: TestClient, person: Person, connection: Connection, event: str, details: str, listed: object
) -> None:
    connection.execute(text("DELETE FROM security_events WHERE user_id = :id"), {"id": person.id})
    for kind, values in (("password_changed", "{}"), (event, details)):
        connection.execute(
            text("INSERT INTO security_events (user_id, event, details) VALUES (:id, :event, CAST(:details AS jsonb))"),
            {"id": person.id, "event": kind, "details": values},
        )

    answer = client.get("/users/me/security-events", headers=person.headers)

    assert answer.status_code == 200, answer.text
    expected = [] if listed is None else [("signed_in", listed)]
    assert [(row["event"], row["details"]) for row in answer.json()] == [*expected, ("password_changed", {})]
