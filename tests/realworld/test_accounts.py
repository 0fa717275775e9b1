"""`/api/users`, `/api/user` and `/api/profiles`."""

from collections.abc import Callable
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.config import get_settings
from app.models.session import adopted_session_id
from app.realworld import queries
from app.security import access_tokens, attempt_limits
from tests.fixtures import PASSWORD, Person
from tests.races.waiting import in_background, wait_until_blocked
from tests.realworld.conftest import JSON, MakePerson, Rows, as_token, assert_errors, name_of, profile_of, shown

NEW = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
ACCOUNTS = "SELECT count(*) FROM users"
SESSIONS = "SELECT user_id FROM sessions"
NEW_PASSWORD = "another staple of horses"
DESCRIPTION = "SELECT username, bio, image_url FROM users WHERE id = :id"


def changed(client: TestClient, person: Person, **user: object) -> JSON:
    answer = client.put("/api/user", json={"user": user}, headers=as_token(person))
    return dict(shown(answer, "user"))


def begin_session_earlier(engine: Engine, person: Person, minutes: float) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE sessions SET created_at = created_at - make_interval(secs => :s) WHERE id = :id"),
            {"s": 60 * minutes, "id": person.session_id},
        )


def test_registration_creates_an_account_and_signs_in(conduit: TestClient, rows: Rows) -> None:
    user = shown(conduit.post("/api/users", json={"user": NEW}), "user", 201)

    token = user.pop("token")
    assert user == {"email": "ada@example.com", "username": "ada", "bio": None, "image": None}
    [(user_id, email, username)] = rows("SELECT id, email, username FROM users")
    assert (email, username) == ("ada@example.com", "ada")
    assert rows(SESSIONS) == [(user_id,)]
    assert rows("SELECT event FROM security_events ORDER BY id") == [("signed_up",), ("signed_in",)]
    assert shown(conduit.get("/api/user", headers={"Authorization": f"Token {token}"}), "user")["token"] == token
    # The main API takes the same token, which is valid as long as its session.
    assert conduit.get("/users/me", headers={"Authorization": f"Bearer {token}"}).json()["id"] == user_id
    verified = access_tokens.verify(token)
    assert verified.expires_at - verified.issued_at == get_settings().session_lifetime.total_seconds()


@pytest.mark.parametrize(("name", "value"), [("username", "ADA"), ("email", "Ada@Example.com")])
def test_taken_name_or_address_is_refused_and_leaves_nothing(
    conduit: TestClient, make_person: MakePerson, rows: Rows, name: str, value: str
) -> None:
    make_person(email="ada@example.com", username="ada")
    user = NEW | {"email": "new@example.com", "username": "new"} | {name: value}

    response = conduit.post("/api/users", json={"user": user})

    assert_errors(response, 409, **{name: "has already been taken"})
    assert (rows(ACCOUNTS), len(rows(SESSIONS))) == ([(1,)], 1)


@pytest.mark.parametrize("name", ["username", "email", "password"])
@pytest.mark.parametrize("value", ["", " ", None])
def test_registration_needs_every_field(conduit: TestClient, rows: Rows, name: str, value: str | None) -> None:
    user = {**NEW, name: value}
    if value is None:
        del user[name]

    assert_errors(conduit.post("/api/users", json={"user": user}), 422, **{name: "can't be blank"})

    assert rows(ACCOUNTS) == [(0,)]


def test_registration_obeys_the_control_of_sign_ups(
    conduit: TestClient, make_person: MakePerson, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    admin = make_person(role="admin")
    monkeypatch.setattr(get_settings(), "registration", "closed")
    assert conduit.post("/api/users", json={"user": NEW}).status_code == 403
    monkeypatch.setattr(get_settings(), "registration", "invite")
    assert conduit.post("/api/users", json={"user": NEW}).status_code == 403
    assert rows(ACCOUNTS) == [(1,)]
    invite = conduit.post("/invites", json={}, headers=admin.headers).json()["token"]

    assert conduit.post("/api/users", json={"user": NEW | {"invite": invite}}).status_code == 201

    monkeypatch.setattr(get_settings(), "registration", "open")
    monkeypatch.setattr(get_settings(), "signup_proof_of_work", True)
    proofless = NEW | {"username": "eve", "email": "eve@example.com"}
    assert conduit.post("/api/users", json={"user": proofless}).status_code == 403
    assert rows(ACCOUNTS) == [(2,)]


def test_login_answers_the_account_with_a_token(conduit: TestClient, person: Person, rows: Rows) -> None:
    body = {"user": {"email": person.email, "password": PASSWORD}}

    user = shown(conduit.post("/api/users/login", json=body), "user")

    token = user.pop("token")
    assert user == {"email": person.email, "username": name_of(person), "bio": None, "image": None}
    assert rows(SESSIONS) == [(person.id,)] * 2
    assert access_tokens.verify(token).user_id == person.id


def test_wrong_passwords_are_refused_alike_and_counted(conduit: TestClient, person: Person, rows: Rows) -> None:
    for email in (person.email, "unknown@example.com"):
        body = {"user": {"email": email, "password": "wrong"}}
        assert_errors(conduit.post("/api/users/login", json=body), 401, credentials="invalid")
    for _ in range(9):
        conduit.post("/api/users/login", json={"user": {"email": person.email, "password": "wrong"}})

    refused = conduit.post("/api/users/login", json={"user": {"email": person.email, "password": PASSWORD}})

    assert refused.status_code == 429
    assert refused.json()["errors"].keys() == {"message"}
    assert int(refused.headers["Retry-After"]) > 0
    assert rows(SESSIONS) == [(person.id,)]
    # The main API counts the same attempts.
    assert conduit.post("/login", data={"username": person.email, "password": PASSWORD}).status_code == 429


def test_login_needs_the_second_factor(conduit: TestClient, person: Person, rows: Rows) -> None:
    made = conduit.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)
    code = pyotp.TOTP(made.json()["secret"]).now()
    confirmed = conduit.post("/users/me/totp/confirm", json={"code": code}, headers=person.headers)
    user = {"email": person.email, "password": PASSWORD}

    answer = conduit.post("/api/users/login", json={"user": user})
    assert (answer.status_code, [*answer.json()["errors"]]) == (403, ["message"])
    answer = conduit.post("/api/users/login", json={"user": user | {"otp": "000000x"}})
    assert_errors(answer, 401, credentials="invalid")

    assert rows(SESSIONS) == [(person.id,)]
    recovery_code = confirmed.json()["recovery_codes"][0]
    shown(conduit.post("/api/users/login", json={"user": user | {"otp": recovery_code}}), "user")


def test_description_is_changed_kept_and_removed(conduit: TestClient, person: Person, rows: Rows) -> None:
    image = "https://example.com/ada.png"
    user = changed(conduit, person, username="countess", bio="About me", image=image)
    assert user == {
        "email": person.email, "username": "countess", "bio": "About me", "image": image, "token": person.token,
    }  # fmt: skip
    assert rows(DESCRIPTION, id=person.id) == [("countess", "About me", image)]

    assert changed(conduit, person, bio="Other")["image"] == image
    assert changed(conduit, person)["bio"] == "Other"
    for empty in ("", None):
        changed(conduit, person, bio="About me", image=image)
        user = changed(conduit, person, bio=empty, image=empty)
        assert (user["bio"], user["image"]) == (None, None)
        assert rows(DESCRIPTION, id=person.id) == [("countess", None, None)]


def test_avatar_is_the_picture_until_an_address_is_given(
    conduit: TestClient, person: Person, make_media: Callable[..., JSON], rows: Rows
) -> None:
    picture = make_media(person)
    assert conduit.put("/users/me/avatar", json={"media_id": picture["id"]}, headers=person.headers).status_code == 200

    shown_avatar = shown(conduit.get("/api/user", headers=as_token(person)), "user")["image"]

    assert shown_avatar == conduit.get("/users/me", headers=person.headers).json()["avatar"]["url"]
    # A frontend sends back the whole form.
    assert changed(conduit, person, image=shown_avatar, bio="x")["image"] == shown_avatar
    assert rows(DESCRIPTION, id=person.id) == [(name_of(person), "x", None)]
    assert changed(conduit, person, image="https://example.com/a.png")["image"] == "https://example.com/a.png"


@pytest.mark.parametrize(
    "image",
    ["javascript:alert(1)", "data:image/png;base64,xx", "ada.png", "https://a b", 'https://a"', "https://" + "a" * 993],
)
def test_picture_is_an_address_of_bounded_length(conduit: TestClient, person: Person, rows: Rows, image: str) -> None:
    answer = conduit.put("/api/user", json={"user": {"image": image}}, headers=as_token(person))

    assert (answer.status_code, [*answer.json()["errors"]]) == (422, ["image"])
    assert rows(DESCRIPTION, id=person.id) == [(name_of(person), None, None)]


@pytest.mark.parametrize("name", ["email", "username", "password"])
@pytest.mark.parametrize("value", ["", None])
def test_required_fields_are_not_emptied(conduit: TestClient, person: Person, name: str, value: str | None) -> None:
    answer = conduit.put("/api/user", json={"user": {name: value}}, headers=as_token(person))

    assert (answer.status_code, [*answer.json()["errors"]]) == (422, [name])


def test_address_and_password_change_within_ten_minutes_of_signing_in(
    conduit: TestClient, database: Engine, person: Person, rows: Rows
) -> None:
    begin_session_earlier(database, person, 9.9)
    body = {"user": {"email": person.email, "password": PASSWORD}}
    second = shown(conduit.post("/api/users/login", json=body), "user")["token"]

    user = changed(conduit, person, email="new@example.com", password=NEW_PASSWORD)

    assert user["email"] == "new@example.com"
    assert rows("SELECT email, email_verified_at FROM users") == [("new@example.com", None)]
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert_errors(conduit.get("/api/user", headers={"Authorization": f"Token {second}"}), 401, token="is invalid")
    body = {"user": {"email": "new@example.com", "password": NEW_PASSWORD}}
    shown(conduit.post("/api/users/login", json=body), "user")


@pytest.mark.parametrize("given", [{"email": "new@example.com"}, {"password": NEW_PASSWORD}])
def test_later_they_need_another_sign_in_and_the_rest_does_not(
    conduit: TestClient, database: Engine, person: Person, rows: Rows, given: JSON
) -> None:
    begin_session_earlier(database, person, 10.1)
    before = rows("SELECT email, password_hash FROM users")

    response = conduit.put("/api/user", json={"user": given | {"bio": "x"}}, headers=as_token(person))

    assert response.status_code == 403
    assert rows("SELECT email, password_hash, bio FROM users") == [(*before[0], None)]
    # A frontend sends back the whole form.
    assert changed(conduit, person, email=person.email, username="countess", bio="x")["bio"] == "x"


def test_session_of_an_adopted_token_is_no_sign_in(database: Engine, person: Person) -> None:
    session_id = adopted_session_id(person.id)
    with database.begin() as connection:
        connection.execute(
            text("INSERT INTO sessions (id, user_id, expires_at) VALUES (:id, :user_id, now() + interval '1 day')"),
            {"id": session_id, "user_id": person.id},
        )
    with Session(database) as db:
        assert queries.has_just_signed_in(db, person.session_id)
        assert not queries.has_just_signed_in(db, session_id)


def test_of_two_new_passwords_at_once_the_second_is_refused(
    conduit: TestClient, database: Engine, person: Person, rows: Rows
) -> None:
    with database.connect() as holder, database.connect() as looking:
        holder.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": person.id})
        answer = in_background(
            lambda: conduit.put("/api/user", json={"user": {"password": NEW_PASSWORD}}, headers=as_token(person))
        )
        wait_until_blocked(looking.execution_options(isolation_level="AUTOCOMMIT"), by=holder)
        holder.execute(text("UPDATE users SET password_hash = 'of the owner' WHERE id = :id"), {"id": person.id})
        holder.commit()

    assert answer().status_code == 403
    assert rows("SELECT password_hash FROM users") == [("of the owner",)]


def test_new_passwords_are_limited_because_each_is_hashed(
    conduit: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = attempt_limits.Limit("right_password_of_account", 2, timedelta(minutes=15))
    monkeypatch.setattr(attempt_limits, "RIGHT_PASSWORD_OF_ACCOUNT", few)
    answers = [
        conduit.put("/api/user", json={"user": {"password": NEW_PASSWORD}}, headers=as_token(person)).status_code
        for _ in range(3)
    ]

    assert answers == [200, 200, 429]


def test_taken_address_and_name_are_refused_in_a_change(conduit: TestClient, person: Person, other: Person) -> None:
    changed(conduit, other, username="ada")

    for name, value in (("email", other.email), ("username", "Ada")):
        answer = conduit.put("/api/user", json={"user": {name: value}}, headers=as_token(person))
        assert_errors(answer, 409, **{name: "has already been taken"})


def test_profile_is_public_and_shows_whether_the_caller_follows(
    conduit: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    changed(conduit, other, bio="About me", image="https://example.com/a.png")
    path = f"/api/profiles/{name_of(other)}"
    profile = profile_of(other) | {"bio": "About me", "image": "https://example.com/a.png"}
    assert shown(conduit.get(path), "profile") == profile
    for _ in range(2):
        answer = conduit.post(f"{path}/follow", headers=as_token(person))
        assert shown(answer, "profile") == profile | {"following": True}
        assert rows("SELECT follower_id, followee_id FROM follows") == [(person.id, other.id)]
    assert shown(conduit.get(path, headers=as_token(person)), "profile")["following"] is True
    assert shown(conduit.get(path, headers=as_token(other)), "profile")["following"] is False
    for _ in range(2):
        assert shown(conduit.delete(f"{path}/follow", headers=as_token(person)), "profile") == profile
        assert rows("SELECT follower_id FROM follows") == []


def test_unknown_profile_is_404_and_ones_own_cannot_be_followed(conduit: TestClient, person: Person) -> None:
    headers = as_token(person)
    for method, path in (("GET", ""), ("POST", "/follow"), ("DELETE", "/follow")):
        for name in ("unknown", "user0", "x" * 5000):
            answer = conduit.request(method, f"/api/profiles/{name}{path}", headers=headers)
            assert_errors(answer, 404, profile="not found")
    assert conduit.post(f"/api/profiles/{name_of(person)}/follow", headers=headers).status_code == 422
