"""Placeholders for hidden e-mail addresses: valid for every username and every `PUBLIC_URL`, and never an account's."""

import re

import pytest
from pydantic import EmailStr, TypeAdapter, ValidationError

from app.config import get_settings
from app.schemas.types import OwnEmail, Username
from app.security.email_addresses import is_placeholder_email, placeholder_email

ADDRESSES = TypeAdapter(EmailStr)
USERNAMES = TypeAdapter(Username)
OWN = TypeAdapter(OwnEmail)


@pytest.mark.parametrize(
    "username",
    ["ada", "Ada_L", "a" * 30, "a.b-c_", "7up", "a..b", "a...b", "a.-b", "a--b", "xy_", "user", "1.2.3", "0-_"],
)
def test_every_username_gives_an_address_that_pydantic_accepts(username: str) -> None:
    address = placeholder_email(7, USERNAMES.validate_python(username))

    assert ADDRESSES.validate_python(address) == address
    assert address == f"{'user7' if '..' in username else username}@users.noreply.example.com"


@pytest.mark.parametrize("username", ["user7", "user9223372036854775807", "", "a b", "ü", "a\n", "x" * 65, "a@b", "."])
def test_a_username_that_was_not_chosen_here_gives_a_valid_address_too(username: str) -> None:
    address = placeholder_email(7, username)

    assert ADDRESSES.validate_python(address) == address
    assert address.partition("@")[0] == (username if username.startswith("user") else "user7")


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        (None, "users.noreply.example.com"),
        ("https://posts.example", "users.noreply.posts.example"),
        ("https://Posts.Example:8443/app", "users.noreply.posts.example"),
        ("https://bücher.example", "users.noreply.xn--bcher-kva.example"),
        ("http://localhost:3000", "users.noreply.example.com"),
        ("http://127.0.0.1:8000", "users.noreply.example.com"),
        ("http://[::1]:8000", "users.noreply.example.com"),
        ("http://[::1", "users.noreply.example.com"),
        ("http://printer.local", "users.noreply.example.com"),
        ("http://my_host.example", "users.noreply.example.com"),
        (f"https://{'a.' * 120}example", "users.noreply.example.com"),
    ],
)
def test_the_domain_follows_the_public_url_where_that_is_one_for_mail(
    monkeypatch: pytest.MonkeyPatch, url: str | None, domain: str
) -> None:
    monkeypatch.setattr(get_settings(), "public_url", url)

    address = placeholder_email(7, "ada")

    assert address == f"ada@{domain}"
    assert re.fullmatch(r"[!-~]+", address)
    ADDRESSES.validate_python(address)


@pytest.mark.parametrize(
    "address",
    [
        "ada@users.noreply.bücher.example",
        "ada@users.noreply.xn--bcher-kva.example",
        "ADA@USERS.NOREPLY.BÜCHER.EXAMPLE",
        "ada@users.noreply.ｂücher.example",
        "stranger+tag@users.noreply.xn--bcher-kva.example",
    ],
)
def test_a_placeholder_in_any_spelling_is_no_address_for_an_account(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(get_settings(), "public_url", "https://bücher.example")

    assert is_placeholder_email(address)
    with pytest.raises(ValidationError) as refused:
        OWN.validate_python(address)

    (problem,) = refused.value.errors()
    assert problem["type"] == "email_placeholder"
    assert problem["msg"] == (
        "addresses at users.noreply.xn--bcher-kva.example are placeholders, which receive no mail; use your own address"
    )


@pytest.mark.parametrize(
    "address", ["ada@example.com", "ada@noreply.example.com", "users.noreply.example.com@a.example"]
)
def test_other_addresses_stay_addresses(address: str) -> None:
    assert OWN.validate_python(address) == address
