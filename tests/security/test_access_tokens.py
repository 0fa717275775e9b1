"""Access tokens: every bit counts, and keys can be changed without ending sessions."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from jose import jwt
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.config import get_settings
from app.errors import MalformedCursor, NotAuthenticated
from app.schemas import cursor as cursors
from app.security import access_tokens
from tests.fixtures import Person

LIFETIME = timedelta(minutes=30)
NEW, OLD, OLDER = ("new secret" * 4, "old secret" * 4, "older secret" * 4)
Keys = Callable[..., None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """Give the application keys: `keys(NEW, OLD)` signs with the first and accepts both. None has verified yet."""

    def use(current: str, *previous: str) -> None:
        monkeypatch.setattr(get_settings(), "secret_key", SecretStr(current))
        monkeypatch.setattr(get_settings(), "secret_key_previous", [SecretStr(secret) for secret in previous])
        _forget()

    yield use
    _forget()


def _forget() -> None:
    for remembered in access_tokens._remembered.values():
        remembered.clear()


def is_accepted(token: str, kind: access_tokens.Kind = "access") -> bool:
    try:
        access_tokens.verify(token, kind)
    except NotAuthenticated:
        return False
    return True


@pytest.mark.parametrize("kind", ["access", "cookie"])
def test_every_bit_of_a_token_counts(kind: access_tokens.Kind) -> None:
    token = access_tokens.issue(7, 9, LIFETIME, kind)
    assert is_accepted(token, kind)

    flipped = [
        token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :]
        for place in range(len(token))
        for bit in range(7)
    ]

    assert len(set(flipped)) == 7 * len(token)
    assert [forgery for forgery in flipped if is_accepted(forgery, kind)] == []
    assert is_accepted(token, kind)


def test_letters_that_decode_to_the_same_signature_are_refused() -> None:
    """Otherwise a respelt token would evade a list of revoked tokens.

    One session would have many tokens.
    """
    token = access_tokens.issue(7, 9, LIFETIME)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    others = {token[:-1] + letter for letter in alphabet} - {token}
    others |= {token + junk for junk in ("=", "==", "A", "\n", " ", "!", ".")} | {f"{token[:-4]}!{token[-4:]}"}

    assert [forgery for forgery in others if is_accepted(forgery)] == []


def test_a_token_of_one_kind_is_rejected_as_the_other_even_if_cached() -> None:
    access, cookie = access_tokens.issue(7, 9, LIFETIME), access_tokens.issue(7, 9, LIFETIME, "cookie")

    for _ in range(2):
        assert (is_accepted(access), is_accepted(cookie, "cookie")) == (True, True)
        assert (is_accepted(access, "cookie"), is_accepted(cookie)) == (False, False)


@pytest.mark.parametrize("kind", ["access", "cookie"])
@pytest.mark.parametrize(("seconds", "is_good"), [(-60, True), (55, True), (65, False), (3600, False), (10**12, False)])
def test_a_token_from_the_future_is_refused_past_what_clocks_may_differ(
    monkeypatch: pytest.MonkeyPatch, kind: access_tokens.Kind, seconds: int, *, is_good: bool
) -> None:
    class Later:
        @staticmethod
        def time() -> float:
            return time.time() + seconds

    with monkeypatch.context() as patch:
        patch.setattr(access_tokens, "time", Later)
        token = access_tokens.issue(7, 9, LIFETIME, kind)
        if seconds < 10**12:
            assert is_accepted(token, kind), "it is remembered where it is made"

    assert is_accepted(token, kind) == is_good
    _forget()
    assert is_accepted(token, kind) == is_good


def test_a_token_from_the_future_opens_no_route(client: TestClient, person: Person) -> None:
    claims = jwt.get_unverified_claims(person.token)
    secret = get_settings().signing_secret
    for seconds, status in ((30, 200), (120, 401)):
        moved = claims | {"iat": claims["iat"] + seconds}
        headers = {"Authorization": f"Bearer {jwt.encode(moved, secret, algorithm='HS256')}"}
        for path in ("/posts", "/users/me"):
            assert client.get(path, headers=headers).status_code == status


def test_tokens_of_the_key_before_are_accepted_until_it_is_taken_out(keys: Keys) -> None:
    keys(OLD)
    token = access_tokens.issue(7, 9, LIFETIME)

    keys(NEW, OLD)
    assert is_accepted(token)
    assert is_accepted(access_tokens.issue(7, 9, LIFETIME))
    assert (
        jwt.get_unverified_header(access_tokens.issue(7, 9, LIFETIME))["kid"] != jwt.get_unverified_header(token)["kid"]
    )
    keys("newest" * 8, NEW, OLD)
    assert is_accepted(token)

    keys("newest" * 8, NEW)
    assert not is_accepted(token)


def test_a_process_with_the_new_key_first_and_one_with_the_old_first_accept_each_other(keys: Keys) -> None:
    """A key is changed without a break in two steps.

    It is first a previous key everywhere, then the one that signs.
    """
    keys(NEW, OLD)
    of_new = access_tokens.issue(7, 9, LIFETIME)
    keys(OLD, NEW)

    assert is_accepted(of_new)


def test_a_key_is_accepted_under_its_own_name_only(keys: Keys) -> None:
    keys(NEW, OLD)
    claims = jwt.get_unverified_claims(access_tokens.issue(7, 9, LIFETIME))

    def signed(secret: str, kid: str) -> str:
        return str(jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid}))

    assert is_accepted(signed(OLD, access_tokens.key_id(OLD)))
    assert not is_accepted(signed(OLD, access_tokens.key_id(NEW)))
    assert not is_accepted(signed(NEW, access_tokens.key_id(OLD)))
    assert not is_accepted(signed(OLDER, access_tokens.key_id(OLDER)))


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_a_token_without_a_name_of_its_key_as_older_releases_made_is_accepted(keys: Keys, secret: str) -> None:
    keys(NEW, OLD)
    claims = jwt.get_unverified_claims(access_tokens.issue(7, 9, LIFETIME))

    assert is_accepted(str(jwt.encode(claims, secret, algorithm="HS256")))
    assert not is_accepted(str(jwt.encode(claims, OLDER, algorithm="HS256")))


@pytest.mark.parametrize("secret", ["1" * 40, '{"keys": [], "padding": "0123456789"}', '["a", "b"]' + " " * 40])
def test_a_secret_that_is_json_is_a_secret(keys: Keys, secret: str) -> None:
    keys(secret)

    assert is_accepted(access_tokens.issue(7, 9, LIFETIME))
    keys(NEW)
    assert not is_accepted(str(jwt.encode({"user_id": 7}, NEW, algorithm="HS256")))


def test_cursors_of_the_key_before_lead_on(keys: Keys) -> None:
    keys(OLD)
    cursor = cursors.sign(["users", 7])

    keys(NEW, OLD)
    assert cursors.verify(cursor) == ["users", 7]

    keys(NEW)
    with pytest.raises(MalformedCursor):
        cursors.verify(cursor)


def test_sessions_from_before_the_key_change_stay_valid(
    client: TestClient, person: Person, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = get_settings().signing_secret

    keys(NEW, before)

    assert client.get("/posts", headers=person.headers).status_code == 200
    monkeypatch.setattr(get_settings(), "secret_key_previous", None)
    _forget()
    assert client.get("/posts", headers=person.headers).status_code == 401


def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tokens, "MAX_REMEMBERED", 5)
    _forget()

    assert all(is_accepted(access_tokens.issue(7, number, LIFETIME)) for number in range(1, 20))

    assert len(access_tokens._remembered["access"]) == 5
