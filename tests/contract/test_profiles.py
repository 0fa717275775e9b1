"""Profiles: display name, biography and counts; by id, by username and in a search."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

TEXTS = "SELECT display_name, bio FROM users WHERE id = :id"


def profile(client: TestClient, person: Person, viewer: Person | None = None) -> dict[str, object]:
    response = client.get(f"/users/{person.id}", headers=viewer.headers if viewer else {})
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    return body


def names(client: TestClient, viewer: Person, query: str) -> list[str]:
    response = client.get(f"/users/search?{query}", headers=viewer.headers)
    assert response.status_code == 200, response.text
    return [user["username"] for user in response.json()]


def test_new_account_may_describe_itself(client: TestClient, rows: Rows) -> None:
    described = {"display_name": "Ada L.", "bio": "Engines.\nAnd numbers."}
    response = client.post("/users", json={"email": "a@example.com", "password": "a long password", **described})

    assert response.status_code == 201
    assert response.json() | described == response.json()
    assert rows(TEXTS, id=response.json()["id"]) == [("Ada L.", "Engines.\nAnd numbers.")]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_descriptions_are_changed_kept_and_removed(client: TestClient, person: Person, rows: Rows, method: str) -> None:
    def change(**wanted: str | None) -> None:
        response = client.request(method, "/users/me", json=wanted, headers=person.headers)
        assert response.status_code == 200, response.text
        assert [(response.json()["display_name"], response.json()["bio"])] == rows(TEXTS, id=person.id)

    change(display_name="Ada L.", bio="Engines.")
    change(username="ada")
    assert rows(TEXTS, id=person.id) == [("Ada L.", "Engines.")]
    assert (profile(client, person)["display_name"], profile(client, person)["bio"]) == ("Ada L.", "Engines.")
    change(display_name=None, bio="")
    assert rows(TEXTS, id=person.id) == [("Ada L.", None)]
    change(display_name="")
    assert rows(TEXTS, id=person.id) == [(None, None)]


@pytest.mark.parametrize(
    "wanted", [{"display_name": "x" * 51}, {"bio": "x" * 501}, {"display_name": " "}, {"bio": "\0"}]
)
def test_description_past_its_bounds_is_refused(
    client: TestClient, person: Person, rows: Rows, wanted: dict[str, str]
) -> None:
    assert_refused(client.patch("/users/me", json=wanted, headers=person.headers), 422, "validation_failed")
    assert rows(TEXTS, id=person.id) == [(None, None)]


def test_description_at_its_bounds_is_accepted(client: TestClient, person: Person) -> None:
    wanted = {"display_name": "😀" * 50, "bio": "漢" * 500}
    assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200

    for shown in (profile(client, person), client.get("/users/me", headers=person.headers).json()):
        assert {name: shown[name] for name in wanted} == wanted


def test_profile_counts_published_posts(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int]
) -> None:
    assert profile(client, person)["posts"] == 0
    published, _, draft = make_post(person), make_post(person), make_post(person, published=False)
    make_post(other)
    assert profile(client, person)["posts"] == 2
    for post_id, is_published, posts in ((draft, True, 3), (published, False, 2), (draft, True, 2)):
        body = {"published": is_published}
        assert client.patch(f"/posts/{post_id}", json=body, headers=person.headers).status_code == 200
        assert profile(client, person)["posts"] == posts
    assert client.delete(f"/posts/{draft}", headers=person.headers).status_code == 204
    assert profile(client, person)["posts"] == 1
    assert client.get("/users/me", headers=person.headers).json()["posts"] == 1
    assert profile(client, other)["posts"] == 1


def test_owner_beside_a_post_stays_as_short_as_it_was(
    client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    client.patch("/users/me", json={"display_name": "Ada L."}, headers=person.headers)

    for post in (client.get(f"/posts/{post_id}", headers=person.headers).json(),
                 client.get("/posts", headers=person.headers).json()[0]):  # fmt: skip
        assert list(post["Post"]["owner"]) == ["id", "username", "created_at", "email"]


# By username.


@pytest.mark.parametrize("spelled", ["Ada_L", "ada_l", "ADA_L"])
def test_profile_is_found_by_username_however_cased(
    client: TestClient, make_person: Callable[..., Person], spelled: str
) -> None:
    ada, viewer = make_person(username="Ada_L"), make_person()
    make_person(username="ada_lovelace")

    response = client.get(f"/users/by-username/{spelled}", headers=viewer.headers)

    assert response.status_code == 200
    assert response.json() == profile(client, ada, viewer)
    assert response.json()["email"] == "Ada_L@users.noreply.example.com"
    assert client.get(f"/users/by-username/{spelled}").json() == profile(client, ada)


def test_profile_of_an_account_without_a_chosen_username_is_found(client: TestClient, person: Person) -> None:
    assert client.get(f"/users/by-username/user{person.id}").json()["id"] == person.id


def test_unknown_username_is_not_found(client: TestClient, person: Person) -> None:
    response = client.get("/users/by-username/nowhere", headers=person.headers)

    assert_refused(response, 404, "user_not_found", "User with username: nowhere does not exist")
    assert_refused(client.get("/users/by-username/" + "x" * 31), 422, "validation_failed")
    assert_refused(client.get("/users/by-username/a%00b"), 404, "not_found")


HIDDEN = {
    "disabled": "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
    "deleted": "UPDATE users SET is_active = false, is_deleted = true WHERE id = :id RETURNING 1",
}


@pytest.mark.parametrize("change", HIDDEN)
def test_disabled_and_deleted_accounts_are_found_neither_by_username_nor_in_a_search(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows, change: str
) -> None:
    gone, _ = make_person(username="gone"), make_person(username="gone2")
    assert names(client, person, "q=gone") == ["gone", "gone2"]
    rows(HIDDEN[change], id=gone.id)

    assert_refused(client.get("/users/by-username/gone"), 404, "user_not_found")
    assert names(client, person, "q=gone") == ["gone2"]


# Searches.


def test_search_finds_usernames_by_their_beginning_in_any_case_and_in_order(
    client: TestClient, person: Person, make_person: Callable[..., Person]
) -> None:
    for name in ("Adam", "ada", "ADALBERT", "bad", "ad-a", "adz", "ae"):
        make_person(username=name)

    assert names(client, person, "q=aDa") == ["ada", "ADALBERT", "Adam"]
    assert names(client, person, "q=ad") == ["ad-a", "ada", "ADALBERT", "Adam", "adz"]
    assert names(client, person, "q=ad&limit=2") == ["ad-a", "ada"]
    assert names(client, person, "q=adamant") == names(client, person, "q=%25") == names(client, person, "q=a_a") == []
    assert names(client, person, f"q=user{person.id}") == [f"user{person.id}"]


def test_search_shows_no_email_address(
    client: TestClient, person: Person, admin: Person, make_person: Callable[..., Person]
) -> None:
    ada = make_person(username="ada", email="secret@example.com")
    client.patch("/users/me", json={"display_name": "Ada L."}, headers=ada.headers)

    for viewer in (person, admin, ada):
        response = client.get("/users/search?q=ada", headers=viewer.headers)
        assert response.json() == [{"id": ada.id, "username": "ada", "display_name": "Ada L.", "avatar": None}]


@pytest.mark.parametrize("query", ["", "q=", "q=" + "x" * 31, "q=a%00", "q=a&limit=0"])
def test_search_past_its_bounds_is_refused(client: TestClient, person: Person, query: str) -> None:
    assert_refused(client.get(f"/users/search?{query}", headers=person.headers), 422, "validation_failed")


def test_search_needs_an_account_and_is_no_id(client: TestClient) -> None:
    assert_refused(client.get("/users/search?q=a"), 401, "not_authenticated")
    assert_refused(client.get("/users/by-username"), 422, "validation_failed")
