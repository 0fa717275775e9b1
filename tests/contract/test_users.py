"""`/users`: signing up, profiles, changing and deleting accounts."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, Server, linked, located

JSON = {"Content-Type": "application/json"}
COUNTS = ("posts", "followers", "following", "followed", "blocked")
NEW = {"email": "Ada@Example.com", "password": "analytical engine"}


def sign_in(client: TestClient, name: str, password: str) -> int:
    return client.post("/login", data={"username": name, "password": password}).status_code


# Signing up.


def test_signing_up_makes_an_account_named_after_its_id(client: TestClient, rows: Rows) -> None:
    response = client.post("/users", json=NEW)

    assert response.status_code == 201
    body = response.json()
    assert set(body) == {"id", "email", "username", "created_at", "display_name", "bio", "avatar"}
    assert body["email"] == "Ada@Example.com"
    assert body["username"] == f"user{body['id']}"
    assert located(response) == f"/users/{body['id']}"
    assert rows("SELECT id, email, email_canonical, role, is_active FROM users") == [
        (body["id"], "Ada@Example.com", "ada@example.com", "user", True)
    ]


def test_location_of_a_new_account_leads_to_its_profile_also_below_v1(client: TestClient) -> None:
    response = client.post("/v1/users/", json=NEW)

    assert located(response) == f"/v1/users/{response.json()['id']}"
    assert client.get(located(response)).json()["id"] == response.json()["id"]


def test_times_are_rfc_3339_in_utc(client: TestClient) -> None:
    created_at = client.post("/users", json=NEW).json()["created_at"]

    assert created_at.endswith("Z")
    assert datetime.fromisoformat(created_at).utcoffset() == timedelta(0)


def test_a_chosen_username_is_kept_as_it_is_cased(client: TestClient, rows: Rows) -> None:
    assert client.post("/users", json=NEW | {"username": "Ada_L"}).json()["username"] == "Ada_L"
    assert rows("SELECT username FROM users") == [("Ada_L",)]


@pytest.mark.parametrize("again", ["Ada@Example.com", "ada@example.com", "ADA@EXAMPLE.COM", "ada@ｅxample.com"])
def test_an_email_address_that_is_taken_is_refused_however_cased(client: TestClient, rows: Rows, again: str) -> None:
    client.post("/users", json=NEW)

    response = client.post("/users", json=NEW | {"email": again})

    assert_refused(response, 409, "email_taken")
    assert "example" not in response.text.lower()
    assert rows("SELECT email FROM users") == [("Ada@Example.com",)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("straße@example.com", "strasse@example.com"),
        ("ada@faß.de", "ada@fass.de"),
        ("ﬁ@example.com", "fi@example.com"),
        ("ａda@example.com", "ada@example.com"),
        ("ıda@example.com", "ida@example.com"),
    ],
)
def test_addresses_of_two_mailboxes_make_two_accounts(
    client: TestClient, rows: Rows, first: str, second: str
) -> None:  # fmt: skip
    passwords = {first: "password number one", second: "password number two"}
    for email, password in passwords.items():
        assert client.post("/users", json={"email": email, "password": password}).status_code == 201

    for email, other in ((first, second), (second, first)):
        assert sign_in(client, email, passwords[email]) == 200
        assert sign_in(client, email, passwords[other]) == 403
    assert rows("SELECT email FROM users ORDER BY id") == [(first,), (second,)]


@pytest.mark.parametrize(
    ("first", "second", "canonical"),
    [
        ("user@bücher.example", "user@xn--bcher-kva.example", "user@xn--bcher-kva.example"),
        ("user@XN--BCHER-KVA.example", "USER@BÜCHER.EXAMPLE", "user@xn--bcher-kva.example"),
        ("user@faß.de", "user@faẞ.de", "user@xn--fa-hia.de"),
        ("user@a.example", "user@a。example", "user@a.example"),
        ("zoë@example.com", "ZOE\u0308@example.com", "zoë@example.com"),
        ("straße@example.com", "STRAẞE@example.com", "straße@example.com"),
        ("οδός@example.com", "ΟΔΌΣ@example.com", "οδός@example.com"),
    ],
)
def test_spellings_of_one_address_are_one_account(
    client: TestClient, rows: Rows, first: str, second: str, canonical: str
) -> None:
    assert client.post("/users", json=NEW | {"email": first}).status_code == 201

    assert_refused(client.post("/users", json=NEW | {"email": second}), 409, "email_taken")

    assert sign_in(client, second, NEW["password"]) == 200
    assert rows("SELECT email, email_canonical FROM users") == [(first, canonical)]


@pytest.mark.parametrize(
    "email", ["ada@☃.example", "ada@xn--zzzz.example", "ada@\u05d0a.example", "ada@a\u200db.example"]
)
def test_domain_that_idna_does_not_allow_is_refused_and_not_found(client: TestClient, rows: Rows, email: str) -> None:
    assert_refused(client.post("/users", json=NEW | {"email": email}), 422, "validation_failed")

    assert sign_in(client, email, NEW["password"]) == 403
    assert client.post("/password-reset", json={"email": email}).status_code == 422
    assert rows("SELECT 1 FROM users") == []


def test_a_username_that_is_taken_is_refused_however_cased(client: TestClient, rows: Rows) -> None:
    client.post("/users", json=NEW | {"username": "ada"})

    response = client.post("/users", json={"email": "b@example.com", "password": "difference", "username": "ADA"})

    assert_refused(response, 409, "username_taken")
    assert rows("SELECT username FROM users") == [("ada",)]


@pytest.mark.parametrize("username", ["user7", "User7", "USER123456789", "user0"])
def test_names_that_look_generated_cannot_be_taken(client: TestClient, rows: Rows, username: str) -> None:
    assert_refused(client.post("/users", json=NEW | {"username": username}), 422, "validation_failed")
    assert rows("SELECT 1 FROM users") == []


@pytest.mark.parametrize(
    "username", ["", "ab", "a" * 31, "a b", "a@b", "-abc", "abc-", "aböc", "abc\n", "a\0c", "٣٣٣",
                 "\udc80abc", 7, ["abc"]]
)  # fmt: skip
def test_a_malformed_username_is_refused(client: TestClient, rows: Rows, username: object) -> None:
    assert_refused(
        client.post("/users", content=_json(NEW | {"username": username}), headers=JSON), 422, "validation_failed"
    )
    assert rows("SELECT 1 FROM users") == []


@pytest.mark.parametrize("username", ["abc", "a" * 30, "a.b-c_", "user", "user7a", "7up", None])
def test_a_username_within_the_rules_is_accepted(client: TestClient, username: str | None) -> None:
    assert client.post("/users", json=NEW | {"username": username}).status_code == 201


@pytest.mark.parametrize(
    "email",
    ["", "ada", "ada@", "@example.com", "a b@example.com", "ada@example.com\n", " ada@example.com", "a\0@example.com",
     "\ud800@example.com", "a@" + "b" * 320 + ".com", "ada@exa mple.com", "Ada <ada@example.com>", 7, None],
)  # fmt: skip
def test_a_malformed_email_address_is_refused_and_not_echoed(client: TestClient, rows: Rows, email: object) -> None:
    response = client.post("/users", content=_json(NEW | {"email": email}), headers=JSON)

    assert_refused(response, 422, "validation_failed")
    assert "input" not in response.json()["detail"][0]
    assert "example" not in response.text
    assert rows("SELECT 1 FROM users") == []


@pytest.mark.parametrize("password", ["", "1234567", "x" * 129, "with\0nul bytes", "\ud800" * 10, 12345678, None])
def test_a_malformed_password_is_refused_and_not_echoed(client: TestClient, rows: Rows, password: object) -> None:
    response = client.post("/users", content=_json(NEW | {"password": password}), headers=JSON)

    assert_refused(response, 422, "validation_failed")
    assert not password or str(password) not in response.text
    assert rows("SELECT 1 FROM users") == []


@pytest.mark.parametrize("password", ["2345678é", "x" * 128, "\N{PILE OF POO}" * 128, "\ufdfa" * 128])
def test_a_password_at_the_bounds_signs_in_again(client: TestClient, password: str) -> None:
    assert client.post("/users", json=NEW | {"password": password}).status_code == 201
    assert sign_in(client, "ada@example.com", password) == 200


def test_read_only_and_unknown_fields_are_ignored_and_never_stored(client: TestClient, rows: Rows) -> None:
    extra = {
        "id": 7, "role": "admin", "is_active": False, "created_at": "2000-01-01T00:00:00Z",
        "password_hash": "$2b$12$x", "email_canonical": "eve@example.com", "nickname": "countess",
    }  # fmt: skip

    response = client.post("/users", json=NEW | extra)

    assert response.status_code == 201
    assert set(response.json()) == {"id", "email", "username", "created_at", "display_name", "bio", "avatar"}
    ((user_id, role, is_active, canonical, is_recent, password_hash),) = rows(
        "SELECT id, role, is_active, email_canonical, created_at > now() - interval '1 minute', password_hash "
        "FROM users"
    )
    assert user_id != 7
    assert (role, is_active, canonical, is_recent) == ("user", True, "ada@example.com", True)
    assert password_hash.startswith("$bcrypt-sha256$")


def test_a_missing_field_is_named(client: TestClient) -> None:
    response = client.post("/users", json={"email": "ada@example.com"})

    assert_refused(response, 422, "validation_failed")
    assert response.json()["detail"] == [{"type": "missing", "loc": ["body", "password"], "msg": "Field required"}]


# Profiles.


def placeholder(person: Person) -> str:
    """Return the placeholder for the address of a person without a chosen username."""
    return f"user{person.id}@users.noreply.example.com"


def test_a_profile_shows_a_placeholder_in_place_of_the_email_address(client: TestClient, person: Person) -> None:
    response = client.get(f"/users/{person.id}")

    assert response.status_code == 200
    assert set(response.json()) == {"id", "username", "created_at", "email", "display_name", "bio", "avatar", *COUNTS}
    assert response.json()["username"] == f"user{person.id}"
    assert response.json()["email"] == placeholder(person)


def test_the_placeholder_follows_the_username(client: TestClient, make_person: Callable[..., Person]) -> None:
    ada, twice = make_person(username="Ada_L"), make_person(username="a..b")

    assert client.get(f"/users/{ada.id}").json()["email"] == "Ada_L@users.noreply.example.com"
    assert client.get(f"/users/{twice.id}").json()["email"] == placeholder(twice)


@pytest.mark.parametrize(("role", "is_shown"), [("user", False), ("moderator", False), ("admin", True)])
def test_the_email_address_of_others_is_for_admins(
    client: TestClient, person: Person, make_person: Callable[..., Person], role: str, *, is_shown: bool
) -> None:
    profile = client.get(f"/users/{person.id}", headers=make_person(role=role).headers).json()

    assert profile["email"] == (person.email if is_shown else placeholder(person))


def test_the_own_profile_shows_the_email_address(client: TestClient, person: Person) -> None:
    assert client.get(f"/users/{person.id}", headers=person.headers).json()["email"] == person.email


def test_a_revoked_token_sees_the_public_profile(client: TestClient, person: Person, rows: Rows) -> None:
    rows("DELETE FROM sessions WHERE id = :id RETURNING 1", id=person.session_id)

    assert client.get(f"/users/{person.id}", headers=person.headers).json()["email"] == placeholder(person)


@pytest.mark.parametrize("spelling", ["{}", "x@users.noreply.example.com", "x@USERS.noreply.Example.COM"])
def test_a_placeholder_neither_signs_up_nor_becomes_the_address_of_an_account(
    client: TestClient, person: Person, rows: Rows, spelling: str
) -> None:
    address = spelling.format(placeholder(person))
    before = rows("SELECT users::text FROM users")
    message = "addresses at users.noreply.example.com are placeholders, which receive no mail; use your own address"

    for response in (
        client.post("/users", json=NEW | {"email": address}),
        client.patch("/users/me", json={"email": address, "current_password": PASSWORD}, headers=person.headers),
    ):
        assert_refused(response, 422, "validation_failed")
        assert response.json()["detail"] == [{"type": "email_placeholder", "loc": ["body", "email"], "msg": message}]
    assert rows("SELECT users::text FROM users") == before


def test_a_placeholder_never_signs_in_even_where_it_is_the_address_of_an_old_account(
    client: TestClient, make_person: Callable[..., Person]
) -> None:
    person = make_person(email="old@users.noreply.example.com", username="ada")

    assert sign_in(client, "ada@users.noreply.example.com", PASSWORD) == 403
    assert sign_in(client, person.email, PASSWORD) == 403
    assert sign_in(client, "ada", PASSWORD) == 200


def owners(client: TestClient, reader: Person, *paths: str) -> list[str]:
    """The address of the owner of each post that the reader sees there."""
    answers = [client.get(path, headers=reader.headers).json() for path in paths]
    items = [item for answer in answers for item in (answer if isinstance(answer, list) else [answer])]
    return [item["Post"]["owner"]["email"] for item in items]


def test_every_owner_of_a_post_has_the_placeholder_for_all_but_the_owner(
    client: TestClient, person: Person, other: Person, admin: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    paths = ("/posts", f"/posts/{post_id}", "/posts?sort=top", f"/posts?owner_id={person.id}")

    assert owners(client, other, *paths) == [placeholder(person)] * 4
    assert owners(client, admin, *paths) == [placeholder(person)] * 4
    assert owners(client, person, *paths) == [person.email] * 4
    body = {"title": "t", "content": "c"}
    for response in (
        client.post("/posts", json=body, headers=person.headers),
        client.put(f"/posts/{post_id}", json=body, headers=person.headers),
        client.patch(f"/posts/{post_id}", json=body, headers=person.headers),
    ):
        assert list(response.json()["owner"]) == ["id", "username", "created_at", "email"]
        assert response.json()["owner"]["email"] == person.email


def test_a_page_of_several_owners_shows_each_reader_their_own_address_only(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int]
) -> None:
    for owner in (person, other, person):
        make_post(owner)
    client.post("/vote", json={"post_id": make_post(other), "vote_dir": 1}, headers=person.headers)

    assert owners(client, person, "/posts?sort=old") == [
        person.email, placeholder(other), person.email, placeholder(other)
    ]  # fmt: skip
    assert owners(client, other, "/posts?sort=old") == [
        placeholder(person), other.email, placeholder(person), other.email
    ]  # fmt: skip
    assert owners(client, person, "/users/me/votes") == [placeholder(other)]


def test_a_new_address_changes_the_etag_of_a_page_for_its_owner_only(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], rows: Rows
) -> None:
    make_post(person)
    before = [client.get("/posts", headers=reader.headers).headers["ETag"] for reader in (person, other)]
    rows("UPDATE users SET email = 'new@example.com' WHERE id = :id RETURNING 1", id=person.id)

    after = [client.get("/posts", headers=reader.headers | {"If-None-Match": tag}).status_code
             for reader, tag in zip((person, other), before, strict=True)]  # fmt: skip

    assert before[0] != before[1]
    assert after == [200, 304]


def test_the_placeholder_has_the_host_of_the_public_url(
    start_server: Callable[..., Server], person: Person, other: Person, make_post: Callable[..., int]
) -> None:
    make_post(person)
    server = start_server(PUBLIC_URL="https://posts.example/app")
    with httpx2.Client(base_url=server.url, headers=other.headers) as browser:
        address = browser.get("/posts").json()[0]["Post"]["owner"]["email"]

        assert address == f"user{person.id}@users.noreply.posts.example"
        assert browser.get(f"/users/{person.id}").json()["email"] == address


def test_email_addresses_are_in_every_profile_and_owner_where_the_operator_says_so(
    start_server: Callable[..., Server], person: Person, other: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    with httpx2.Client(base_url=start_server(PUBLIC_EMAILS="true").url, headers=other.headers) as browser:
        written = browser.post("/posts", json={"title": "t", "content": "c"}).json()

        assert browser.get(f"/users/{person.id}", headers={"Authorization": ""}).json()["email"] == person.email
        assert browser.get(f"/posts/{post_id}").json()["Post"]["owner"]["email"] == person.email
        assert browser.get("/posts?sort=old").json()[0]["Post"]["owner"]["email"] == person.email
        assert written["owner"]["email"] == other.email


def test_me_is_the_account_of_the_caller(client: TestClient, person: Person) -> None:
    response = client.get("/users/me", headers=person.headers)

    assert response.status_code == 200
    assert set(response.json()) == {
        "id", "email", "username", "created_at", "display_name", "bio", "avatar", "role", "is_active", "email_verified",
        *COUNTS,
    }  # fmt: skip
    assert response.json()["id"] == person.id
    assert response.json()["email"] == person.email


@pytest.mark.parametrize("user_id", [0, -1, 2**31, 2**63 - 1, 2**63, 10**400])
def test_an_impossible_user_id_is_not_found(client: TestClient, admin: Person, user_id: int) -> None:
    assert_refused(client.get(f"/users/{user_id}"), 404, "user_not_found")
    assert_refused(client.patch(f"/users/{user_id}", json={}, headers=admin.headers), 404, "user_not_found")
    assert_refused(
        client.patch(f"/users/{user_id}", json={"username": "abc"}, headers=admin.headers), 404, "user_not_found"
    )
    assert_refused(client.delete(f"/users/{user_id}", headers=admin.headers), 404, "user_not_found")


def test_a_user_id_that_is_not_a_number_is_malformed(client: TestClient) -> None:
    assert_refused(client.get("/users/ada"), 422, "validation_failed")


# Changing an account.


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/users/me", "/users/{id}", "/v1/users/me/"])
def test_users_change_their_own_username(
    client: TestClient, person: Person, rows: Rows, method: str, path: str
) -> None:
    response = client.request(method, path.format(id=person.id), json={"username": "Grace"}, headers=person.headers)

    assert response.status_code == 200
    assert response.json()["username"] == "Grace"
    assert rows("SELECT username, email FROM users") == [("Grace", person.email)]


@pytest.mark.parametrize("role", ["user", "moderator"])
def test_only_admins_change_or_delete_other_users(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows, role: str
) -> None:
    headers = make_person(role=role).headers
    before = rows("SELECT * FROM users ORDER BY id")

    for method in ("PUT", "PATCH"):
        response = client.request(method, f"/users/{person.id}", json={"username": "mine"}, headers=headers)
        assert_refused(response, 403, "not_authorized", "Not authorized to perform requested action")
    assert_refused(client.delete(f"/users/{person.id}", headers=headers), 403, "not_authorized")

    assert rows("SELECT * FROM users ORDER BY id") == before


def test_an_admin_changes_a_user_without_knowing_their_password(
    client: TestClient, person: Person, admin: Person, rows: Rows
) -> None:
    wanted = {"username": "renamed", "email": "New@example.com", "role": "moderator"}

    response = client.patch(f"/users/{person.id}", json=wanted, headers=admin.headers)

    assert response.status_code == 200
    assert rows("SELECT username, email, email_canonical, role FROM users WHERE id = :id", id=person.id) == [
        ("renamed", "New@example.com", "new@example.com", "moderator")
    ]


@pytest.mark.parametrize("wanted", [{"role": "admin"}, {"is_active": False}, {"id": 7}, {"created_at": "2000-01-01"}])
def test_fields_for_admins_only_are_ignored_from_others(
    client: TestClient, person: Person, rows: Rows, wanted: dict[str, Any]
) -> None:
    before = rows("SELECT * FROM users")

    assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200

    assert rows("SELECT * FROM users") == before


@pytest.mark.parametrize("change", [{"email": "new@example.com"}, {"password": "a new password"}])
@pytest.mark.parametrize("current", [{}, {"current_password": "wrong"}, {"current_password": None},
                                     {"current_password": "\0"}, {"current_password": "\ufdfa" * 1000}])  # fmt: skip
def test_an_email_address_or_password_needs_the_current_password(
    client: TestClient, person: Person, rows: Rows, change: dict[str, str], current: dict[str, str | None]
) -> None:
    before = rows("SELECT * FROM users")

    response = client.patch("/users/me", json=change | current, headers=person.headers)

    if current.get("current_password") == "\0":
        assert_refused(response, 422, "validation_failed")
    else:
        assert_refused(response, 403, "wrong_password")
    assert rows("SELECT * FROM users") == before


def test_a_new_email_address_signs_in_and_the_old_one_does_not(client: TestClient, person: Person, rows: Rows) -> None:
    wanted = {"email": "Grace@Example.com", "current_password": PASSWORD}

    assert client.patch("/users/me", json=wanted, headers=person.headers).json()["email"] == "Grace@Example.com"

    assert rows("SELECT email, email_canonical FROM users") == [("Grace@Example.com", "grace@example.com")]
    assert sign_in(client, "grace@example.com", PASSWORD) == 200
    assert sign_in(client, person.email, PASSWORD) == 403


def test_a_new_password_signs_in_and_ends_the_other_sessions_only(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    elsewhere = client.post("/login", data={"username": person.email, "password": PASSWORD}).json()["access_token"]
    wanted = {"password": "a new password", "current_password": PASSWORD}

    assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200

    assert rows("SELECT id FROM sessions ORDER BY id") == [(person.session_id,), (other.session_id,)]
    assert_unauthenticated(client.get("/users/me", headers={"Authorization": f"Bearer {elsewhere}"}))
    assert_unauthenticated(client.get("/posts", headers={"Authorization": f"Bearer {elsewhere}"}))
    assert client.get("/users/me", headers=person.headers).status_code == 200
    assert sign_in(client, person.email, "a new password") == 200
    assert sign_in(client, person.email, PASSWORD) == 403


def test_a_password_that_an_admin_sets_ends_every_session_of_the_account(
    client: TestClient, person: Person, admin: Person, rows: Rows
) -> None:
    client.patch(f"/users/{person.id}", json={"password": "from the admin"}, headers=admin.headers)

    assert rows("SELECT user_id FROM sessions") == [(admin.id,)]
    assert sign_in(client, person.email, "from the admin") == 200


@pytest.mark.parametrize(
    ("wanted", "code"),
    [({"username": "Taken"}, "username_taken"), ({"email": "TAKEN@example.com"}, "email_taken")],
)
def test_taken_values_are_refused_and_nothing_of_the_change_is_kept(
    client: TestClient,
    person: Person,
    make_person: Callable[..., Person],
    rows: Rows,
    wanted: dict[str, str],
    code: str,
) -> None:
    make_person(email="taken@example.com", username="taken")
    before = rows("SELECT * FROM users ORDER BY id")
    both = {"username": "free", "password": "a new password", "current_password": PASSWORD} | wanted

    assert_refused(client.patch("/users/me", json=both, headers=person.headers), 409, code)

    assert rows("SELECT * FROM users ORDER BY id") == before
    assert rows("SELECT id FROM sessions WHERE id = :id", id=person.session_id) != []


def test_users_may_change_the_case_of_their_name_and_address(
    client: TestClient, make_person: Callable[..., Person]
) -> None:
    ada = make_person(email="ada@example.com", username="ada")
    wanted = {"username": "ADA", "email": "ADA@example.com", "current_password": PASSWORD}

    assert client.patch("/users/me", json=wanted, headers=ada.headers).json()["username"] == "ADA"


@pytest.mark.parametrize("username", ["user7", "USER7", "x", "a b"])
def test_a_name_against_the_rules_is_refused_in_a_change_too(
    client: TestClient, person: Person, rows: Rows, username: str
) -> None:
    response = client.patch("/users/me", json={"username": username}, headers=person.headers)

    assert_refused(response, 422, "validation_failed")
    assert rows("SELECT username FROM users") == [(f"user{person.id}",)]


def test_a_disabled_account_is_rejected_at_once_and_can_be_enabled_again(
    client: TestClient, person: Person, admin: Person, rows: Rows
) -> None:
    client.patch(f"/users/{person.id}", json={"is_active": False}, headers=admin.headers)

    assert rows("SELECT user_id FROM sessions") == [(admin.id,)]
    assert_unauthenticated(client.get("/users/me", headers=person.headers))
    assert sign_in(client, person.email, PASSWORD) == 403

    client.patch(f"/users/{person.id}", json={"is_active": True}, headers=admin.headers)
    assert sign_in(client, person.email, PASSWORD) == 200
    assert_unauthenticated(client.get("/users/me", headers=person.headers))


# Deleting an account.


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_deleting_an_account_takes_its_posts_votes_and_sessions(
    client: TestClient,
    person: Person,
    other: Person,
    make_post: Callable[..., int],
    cast_votes: Callable[..., None],
    rows: Rows,
    path: str,
) -> None:
    mine, theirs = make_post(person), make_post(other)
    cast_votes(mine, [person, other])
    cast_votes(theirs, [person, other])

    response = client.delete(path.format(id=person.id), headers=person.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert rows("SELECT id FROM users") == [(other.id,)]
    assert rows("SELECT id FROM posts") == [(theirs,)]
    assert rows("SELECT post_id, user_id FROM votes") == [(theirs, other.id)]
    assert rows("SELECT post_id, votes FROM post_stats") == [(theirs, 1)]
    assert rows("SELECT user_id FROM sessions") == [(other.id,)]
    for hot_or_not in ("/posts", "/users/me", f"/posts/{theirs}"):
        assert_unauthenticated(client.get(hot_or_not, headers=person.headers))
    assert sign_in(client, person.email, PASSWORD) == 403


def test_an_admin_deletes_a_user(client: TestClient, person: Person, admin: Person, rows: Rows) -> None:
    assert client.delete(f"/users/{person.id}", headers=admin.headers).status_code == 204
    assert_refused(client.delete(f"/users/{person.id}", headers=admin.headers), 404, "user_not_found")
    assert rows("SELECT id FROM users") == [(admin.id,)]


# Listing accounts, and the posts one voted for.


@pytest.mark.parametrize("role", ["user", "moderator"])
def test_only_admins_list_accounts(client: TestClient, make_person: Callable[..., Person], role: str) -> None:
    assert_refused(client.get("/users", headers=make_person(role=role).headers), 403, "not_authorized")


def test_an_admin_walks_all_accounts_by_the_link_header(
    client: TestClient, admin: Person, make_person: Callable[..., Person]
) -> None:
    people = [admin, *(make_person() for _ in range(4))]
    seen: list[int] = []
    address: str | None = "/users?limit=2"
    while address:
        response = client.get(address, headers=admin.headers)
        seen += [account["id"] for account in response.json()]
        address = linked(response)

    assert seen == [each.id for each in people]


def test_an_admin_filters_accounts(client: TestClient, admin: Person, make_person: Callable[..., Person]) -> None:
    ada = make_person(email="Ada@example.com")
    moderator = make_person(role="moderator")
    client.patch(f"/users/{moderator.id}", json={"is_active": False}, headers=admin.headers)

    def ids(query: str) -> list[int]:
        return [account["id"] for account in client.get(f"/users?{query}", headers=admin.headers).json()]

    assert ids("email=ADA@EXAMPLE.COM") == [ada.id]
    assert ids("role=moderator") == [moderator.id]
    assert ids("is_active=false") == [moderator.id]
    assert ids("is_active=true&skip=1") == [ada.id]


@pytest.mark.parametrize(
    "query", ["limit=0", "skip=-1", "skip=10001", "role=king", "is_active=7", "email=%00", "cursor=x"]
)
def test_parameters_out_of_range_are_refused(client: TestClient, admin: Person, query: str) -> None:
    assert client.get(f"/users?{query}", headers=admin.headers).status_code == 422


def test_voted_posts_are_listed_newest_vote_first(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int]
) -> None:
    posts = [make_post(other) for _ in range(3)]
    for post_id in (posts[1], posts[2], posts[0]):
        client.post("/vote", json={"post_id": post_id, "vote_dir": 1}, headers=person.headers)

    response = client.get("/users/me/votes", headers=person.headers)

    assert [item["Post"]["id"] for item in response.json()] == [posts[0], posts[2], posts[1]]
    assert all(item["voted"] for item in response.json())
    assert client.get("/users/me/votes", headers=other.headers).json() == []
    unchanged = client.get("/users/me/votes", headers=person.headers | {"If-None-Match": response.headers["ETag"]})
    assert unchanged.status_code == 304


def _json(body: object) -> bytes:
    """With lone surrogates escaped, as a client in JavaScript sends them."""
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("method", "change"),
    [("PATCH", {"role": "user"}), ("PATCH", {"role": "moderator"}), ("PATCH", {"is_active": False}),
     ("PUT", {"role": "user", "username": "changed"}), ("DELETE", None)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_the_last_active_admin_cannot_be_removed(
    client: TestClient,
    make_person: Callable[..., Person],
    rows: Rows,
    path: str,
    method: str,
    change: dict[str, object] | None,
) -> None:
    admin, former, _ = make_person(role="admin"), make_person(role="admin"), make_person(role="moderator")
    rows("UPDATE users SET is_active = false WHERE id = :id RETURNING 1", id=former.id)
    before = rows("SELECT users::text FROM users ORDER BY id")

    response = client.request(method, path.format(id=admin.id), json=change, headers=admin.headers)

    assert_refused(response, 409, "last_admin", "This is the last active admin; appoint another one first")
    assert rows("SELECT users::text FROM users ORDER BY id") == before
    assert client.get("/users", headers=admin.headers).status_code == 200


@pytest.mark.parametrize(("method", "change"), [("PATCH", {"role": "user"}), ("DELETE", None)])
def test_an_admin_can_be_removed_once_another_exists(
    client: TestClient,
    admin: Person,
    other: Person,
    rows: Rows,
    method: str,
    change: dict[str, object] | None,
) -> None:
    appointed = client.patch(f"/users/{other.id}", json={"role": "admin"}, headers=admin.headers)
    assert (appointed.status_code, appointed.json()["role"]) == (200, "admin")

    assert client.request(method, "/users/me", json=change, headers=admin.headers).is_success

    assert rows("SELECT id FROM users WHERE role = 'admin'") == [(other.id,)]


def test_the_last_admin_can_make_changes_that_keep_them_admin(client: TestClient, admin: Person) -> None:
    change = {"role": "admin", "is_active": True, "username": "root"}
    assert client.patch("/users/me", json=change, headers=admin.headers).status_code == 200
